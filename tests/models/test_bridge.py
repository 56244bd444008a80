"""A model here and the same model as transformers' own class: one set of layers, two programs."""

import copy
import io
from pathlib import Path

import peft
import pytest
import tokenizers
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.case import SIZES
from tests.models.tiny import CASES, LONGROPE, UNWRITABLE, counterpart, reference
from tests.pages.pages import snippet
from tests.support import ROOT
from torchgguf.nn import PackedLayer

ALL = {**CASES, **UNWRITABLE, "llama-longrope": LONGROPE}
# Q8_0 packs rows of 32 weights; Q4_0 too. Other widths stay plain, which is a case as well.
PACKED = {"llama-tied", "llama-biases", "qwen2", "qwen2moe", "qwen2moe-tied", "qwen3", "mistral-sliding"} | {
    "gpt2",
    "phi-long-partial",
    "bloom",
    "bloom-untied",
}


def ids(length: int = 24) -> torch.Tensor:
    return torch.randint(3, 400, (2, length), generator=torch.Generator().manual_seed(length))


def storages(model: torch.nn.Module) -> dict[str, int]:
    return {name: p.data_ptr() for name, p in model.named_parameters(remove_duplicate=False)}


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory):
    """Write a case as a file of a type, once."""
    folder = tmp_path_factory.mktemp("packed")

    def write(name, quantization="Q8_0"):
        path = folder / f"{name}-{quantization}.gguf"
        if not path.exists():
            counterpart(reference(ALL[name])).save_gguf(path, quantization=quantization)
        return path

    return write


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_plain_models_are_the_same(name):
    original = reference(ALL[name])
    ours = counterpart(original)
    theirs = ours.to_transformers()
    assert type(theirs) is type(original)
    assert isinstance(theirs, transformers.PreTrainedModel) and not theirs.training
    assert storages(theirs) == storages(ours)
    assert_close(theirs(ids()).logits, ours(ids()).logits, atol=1e-4, rtol=0)
    assert not [buffer for buffer in theirs.buffers() if buffer.is_meta]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(PACKED))
@torch.no_grad()
def test_packed_models_are_the_same(name, dtype, packed_file):
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file(name), dtype=dtype)
    theirs = ours.to_transformers()
    assert storages(theirs) == storages(ours)
    assert any(isinstance(layer, PackedLayer) for layer in theirs.modules())
    assert theirs.config.dtype is ours.dtype
    expected, actual = ours(ids()).logits, theirs(ids()).logits
    assert actual.dtype is expected.dtype
    # Packed products round activations to 8 bits, where a difference in the last bit grows.
    assert_close(actual, expected, atol=0.05 if dtype == "float32" else 0.5, rtol=0)


def test_mixers_must_be_plain(packed_file):
    """Those of transformers multiply by some weights themselves."""
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file("mamba"))
    with pytest.raises(ValueError, match=r"call model\.dequantize\(\) first"):
        ours.to_transformers()
    expected = ours.dequantize()(ids()).logits
    assert_close(ours.to_transformers()(ids()).logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(PACKED))
def test_a_file_comes_back_byte_for_byte(name, packed_file, tmp_path):
    path, new = packed_file(name), tmp_path / "new.gguf"
    theirs = torchgguf.AutoModelForCausalLM.from_pretrained(path).to_transformers()
    torchgguf.save_gguf(theirs, new)
    assert new.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_models_of_transformers_are_written(name, tmp_path):
    """The file of a model that was never one of ours is that of its counterpart."""
    original = reference(CASES[name])
    counterpart(original).save_gguf(tmp_path / "ours.gguf")
    torchgguf.save_gguf(original, tmp_path / "theirs.gguf")
    assert (tmp_path / "theirs.gguf").read_bytes() == (tmp_path / "ours.gguf").read_bytes()


HEADS = {"SequenceClassification": "llama", "TokenClassification": "gpt2", "QuestionAnswering": "bloom"}


@pytest.mark.parametrize(("head", "name"), HEADS.items())
@torch.no_grad()
def test_other_heads(head, name):
    ours = counterpart(reference(CASES[name], f"AutoModelFor{head}"), auto_class=f"AutoModelFor{head}")
    theirs = ours.to_transformers()
    assert storages(theirs) == storages(ours)
    text = ids()[:1]
    for ours_, theirs_ in zip(ours(text).to_tuple(), theirs(text).to_tuple(), strict=False):
        if isinstance(ours_, torch.Tensor):
            assert_close(theirs_, ours_, atol=1e-4, rtol=0)


def test_a_model_without_a_head():
    ours = counterpart(reference(CASES["qwen3"], "AutoModel"), auto_class="AutoModel")
    theirs = ours.to_transformers()
    assert type(theirs) is transformers.Qwen3Model
    assert storages(theirs) == storages(ours)


def test_a_model_that_transformers_lacks():
    torch.manual_seed(0)
    model = torchgguf.DeciLMForCausalLM(torchgguf.DeciLMConfig(**SIZES))
    with pytest.raises(ValueError, match=r"needs a class that transformers has, got DeciLMForCausalLM$"):
        model.to_transformers()


def test_a_subclass_becomes_the_class_that_transformers_knows():
    class Mine(torchgguf.LlamaForCausalLM): ...

    config = counterpart(reference(CASES["llama"])).config
    assert type(Mine(config).to_transformers()) is transformers.LlamaForCausalLM


@pytest.mark.parametrize("name", ["llama-tied", "qwen2moe", "gpt2"])
@torch.no_grad()
def test_their_generate_says_the_same(name, packed_file):
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file(name))
    theirs = ours.to_transformers()
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert theirs.generate(ids(), **options).tolist() == ours.generate(ids(), **options).tolist()


@torch.no_grad()
def test_their_own_methods_keep_packed_weights(packed_file):
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file("qwen2moe-tied"), dtype="bfloat16")
    theirs = ours.to_transformers()
    expected = theirs(ids(), output_router_logits=True, output_hidden_states=True)
    assert len(expected.router_logits) == len(expected.hidden_states) - 1 == 3
    assert expected.aux_loss.isfinite()
    theirs.tie_weights()
    assert storages(theirs) == storages(ours)
    again = copy.deepcopy(theirs)
    assert torch.equal(again(ids()).logits, expected.logits)
    assert again.float()(ids()).logits.dtype is torch.float32
    pickled = io.BytesIO()
    torch.save(ours.to_transformers(), pickled)  # theirs has hooks by now, which cannot be pickled
    pickled.seek(0)
    assert torch.equal(torch.load(pickled, weights_only=False)(ids()).logits, expected.logits)


def test_generation_config_comes_along():
    ours = counterpart(reference(CASES["llama"]))
    ours.generation_config = torchgguf.GenerationConfig(max_new_tokens=3, eos_token_id=[2, 7])
    theirs = ours.to_transformers()
    assert (theirs.generation_config.max_new_tokens, theirs.generation_config.eos_token_id) == (3, [2, 7])


@pytest.mark.parametrize("name", ["qwen2", "qwen2moe-tied", "gpt2"])
def test_packed_weights_are_saved_unpacked(name, packed_file, tmp_path):
    """What transformers would save are blocks that nothing loads."""
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file(name))
    copy.deepcopy(ours.to_transformers()).save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(loaded(ids()).logits, ours.dequantize()(ids()).logits, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator(["the quick brown fox jumps over the lazy dog"], 300, special_tokens=["<s>"])
    backend.add_special_tokens(["<pad>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend._tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<pad>"
    )


def test_their_pipeline(packed_file, tokenizer):
    ours = torchgguf.AutoModelForCausalLM.from_pretrained(packed_file("llama-tied"))
    pipe = transformers.pipeline("text-generation", model=ours.to_transformers(), tokenizer=tokenizer)
    options = {"max_new_tokens": 5, "do_sample": False}
    (answer,) = pipe("the quick", **options)
    tokens = ours.generate(tokenizer("the quick", return_tensors="pt").input_ids, **options)
    assert answer["generated_text"] == tokenizer.decode(tokens[0], skip_special_tokens=True)


def test_the_page(tokenizer, tmp_path, monkeypatch):
    """The snippets of docs/from-transformers.md run as they stand."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "from-transformers.md"
    names = {"model": counterpart(reference(CASES["gpt2"])), "their_tokenizer": tokenizer}
    for word in ("to_transformers", "torchgguf.save_gguf"):
        exec(snippet(page, word), names)
    assert torchgguf.AutoModelForCausalLM.from_pretrained("gpt2.gguf").config.n_layer == 3


def test_their_trainer_trains_the_weights_of_ours(tmp_path):
    ours = counterpart(reference(CASES["llama-tied"])).train()
    before = ours.lm_head.weight.detach().clone()
    rows = [{"input_ids": row, "labels": row} for row in ids()]
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=1, use_cpu=True, report_to=[], disable_tqdm=True, learning_rate=0.1
    )
    trainer = transformers.Trainer(ours.to_transformers(), arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    assert not torch.equal(ours.lm_head.weight, before)
    again = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(dict(again.named_parameters()), dict(ours.named_parameters()))


def test_a_tokenizer_of_transformers(tokenizer, tmp_path):
    """Its files, read here, give the same bytes."""
    tokenizer.save_pretrained(tmp_path / "files")
    model = counterpart(reference(CASES["llama"]))
    paths = [tmp_path / f"{i}.gguf" for i in range(3)]
    model.save_gguf(paths[0], torchgguf.AutoTokenizer.from_pretrained(tmp_path / "files"))
    model.save_gguf(paths[1], tokenizer)
    torchgguf.save_gguf(model.to_transformers(), paths[2], tokenizer=tokenizer)
    first, *others = (path.read_bytes() for path in paths)
    assert others == [first, first]
    text = "the lazy fox"
    assert torchgguf.AutoTokenizer.from_pretrained(paths[1])(text).input_ids == tokenizer(text).input_ids


def test_quantization_of_a_model_of_transformers(tmp_path):
    original = reference(CASES["qwen2moe"])
    counterpart(original).save_gguf(tmp_path / "ours.gguf", quantization="Q4_K_M")
    torchgguf.save_gguf(original, tmp_path / "theirs.gguf", quantization="Q4_K_M")
    assert (tmp_path / "theirs.gguf").read_bytes() == (tmp_path / "ours.gguf").read_bytes()


def test_the_name_of_the_folder_is_that_of_the_model(tmp_path):
    folder, path = tmp_path / "Tiny-Llama-1B", tmp_path / "x.gguf"
    reference(CASES["llama"]).save_pretrained(folder)
    torchgguf.save_gguf(transformers.AutoModelForCausalLM.from_pretrained(folder), path)
    torchgguf.AutoModelForCausalLM.from_pretrained(folder).save_gguf(tmp_path / "ours.gguf")
    assert path.read_bytes() == (tmp_path / "ours.gguf").read_bytes()


def _resized(model):
    model.lm_head = torch.nn.Linear(64, 7, bias=False)
    return model


BAD = {
    "adapters": (
        lambda: peft.get_peft_model(
            reference(CASES["llama"]), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
        ),
        TypeError,
        "merge its adapters first",
    ),
    "adapters inside": (
        lambda: (
            peft.get_peft_model(
                reference(CASES["llama"]), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
            ).base_model.model
        ),
        ValueError,
        "q_proj.base_layer",
    ),
    "other": (lambda: torch.nn.Linear(2, 2), TypeError, "Linear"),
    "unknown": (
        lambda: transformers.OPTForCausalLM(
            transformers.OPTConfig(
                vocab_size=9, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2
            )
        ),
        ValueError,
        "model_type 'opt' is not supported",
    ),
    "shape": (lambda: _resized(reference(CASES["llama"])), ValueError, "lm_head.weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case, tmp_path):
    make, kind, text = BAD[case]
    with pytest.raises(kind, match=text):
        torchgguf.save_gguf(make(), tmp_path / "x.gguf")
    assert not [*Path(tmp_path).iterdir()]


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(TypeError, match="tokenizer= must be"):
        model.save_gguf(tmp_path / "x.gguf", tokenizer=str)
