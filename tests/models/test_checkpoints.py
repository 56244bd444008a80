"""Hugging Face checkpoints: what transformers writes is read, what is written transformers reads."""

import json
import logging
import resource
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.models.folders import change_config, change_tensors
from tests.models.tiny import CASES, SIZES, counterpart, reference
from torchgguf.models import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen2ForCausalLM,
)

IDS = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where transformers has saved each of the tiny models."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, case in CASES.items():
        reference(case).save_pretrained(folder / name)
    return folder


@pytest.fixture
def llama(folders, tmp_path):
    """A copy of a checkpoint, to be changed."""
    return shutil.copytree(folders / "llama", tmp_path / "llama")


def said(caplog):
    """What was logged by this package."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("torchgguf")]


def assert_same_weights(theirs, ours):
    """All parameters are equal, and called the same."""
    expected, actual = theirs.state_dict(), ours.state_dict()
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_both_ways(folders, tmp_path, name):
    theirs = reference(CASES[name])
    ours = AutoModelForCausalLM.from_pretrained(folders / name)
    assert type(ours).__name__ == type(theirs).__name__
    assert_same_weights(theirs, ours)
    assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)

    ours.save_pretrained(tmp_path)
    again, info = type(theirs).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    assert_same_weights(theirs, again)
    assert torch.equal(again(IDS).logits, theirs(IDS).logits)
    # Their file has the same tensors, some architectures' in other pieces than they are in memory.
    with safe_open(tmp_path / "model.safetensors", "pt") as written:
        with safe_open(folders / name / "model.safetensors", "pt") as original:
            assert set(written.keys()) == set(original.keys())
        assert written.metadata() == {"format": "pt"}
    written = again.config.to_dict()
    original = transformers.AutoConfig.from_pretrained(folders / name).to_dict()
    for key in original.keys() - {"_name_or_path", "rope_parameters"}:  # which may state defaults or not
        if (key, original[key]) != ("head_dim", None):  # the size that follows from others
            assert (written.get(key) or None) == (original[key] or None), key


@torch.no_grad()
def test_one_file_or_several(folders, llama, tmp_path):
    """The index, the names of the files, and what is in each are as transformers has them."""
    theirs = reference(CASES["llama"])
    theirs.save_pretrained(llama, max_shard_size="100KB")  # the single file stays, and would win
    (llama / "model.safetensors").unlink()
    ours = AutoModelForCausalLM.from_pretrained(llama)
    assert_same_weights(theirs, ours)

    ours.save_pretrained(tmp_path / "ours", max_shard_size="100KB")
    files = sorted(path.name for path in llama.glob("model*"))
    assert len(files) > 3
    assert sorted(path.name for path in (tmp_path / "ours").glob("model*")) == files
    for file in files:
        a, b = llama / file, tmp_path / "ours" / file
        if file.endswith(".json"):
            assert json.loads(a.read_text()) == json.loads(b.read_text())  # sizes included
        else:
            assert load_file(a).keys() == load_file(b).keys()
    assert_same_weights(theirs, transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours"))

    ours.save_pretrained(tmp_path / "ours")  # what an earlier save has left is gone
    assert [path.name for path in (tmp_path / "ours").glob("model*")] == ["model.safetensors"]
    ours.save_pretrained(tmp_path / "ours", max_shard_size=100_000)
    assert sorted(path.name for path in (tmp_path / "ours").glob("model*")) == files


@pytest.mark.parametrize("zipped", [True, False], ids=["mapped", "from before torch 1.6"])
@pytest.mark.parametrize("shards", [1, 2])
def test_pickles(llama, zipped, shards):
    theirs = reference(CASES["llama-tied"])
    change_config(llama, tie_word_embeddings=True)
    (llama / "model.safetensors").unlink()
    names = list(theirs.state_dict())  # the head is in there as well, and shares its memory
    index = {}
    for i in range(shards):
        file = "pytorch_model.bin" if shards == 1 else f"pytorch_model-0000{i + 1}-of-0000{shards}.bin"
        part = {name: theirs.state_dict()[name] for name in names[i::shards]}
        torch.save(part, llama / file, _use_new_zipfile_serialization=zipped)
        index |= dict.fromkeys(part, file)
    if shards > 1:
        (llama / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same_weights(theirs, AutoModelForCausalLM.from_pretrained(llama))


def test_pickles_are_left_alone_where_safetensors_are_asked_for(llama):
    torch.save(load_file(llama / "model.safetensors"), llama / "pytorch_model.bin")
    assert AutoModelForCausalLM.from_pretrained(llama, use_safetensors=True)
    (llama / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file model\.safetensors or"):
        AutoModelForCausalLM.from_pretrained(llama, use_safetensors=True)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a \.safetensors file"):
        AutoModelForCausalLM.from_pretrained(llama / "pytorch_model.bin", use_safetensors=True)
    assert AutoModelForCausalLM.from_pretrained(llama)


def test_single_file(llama):
    theirs = reference(CASES["llama"])
    assert_same_weights(theirs, AutoModelForCausalLM.from_pretrained(llama / "model.safetensors"))
    (llama / "model.safetensors").rename(llama / "other.safetensors")
    assert_same_weights(theirs, LlamaForCausalLM.from_pretrained(str(llama / "other.safetensors")))
    assert AutoConfig.from_pretrained(llama / "config.json").hidden_size == SIZES["hidden_size"]


def test_weights_stay_in_the_mapped_file(folders, llama):
    """Until they are written to; and what is written does not reach the file."""
    before = (llama / "model.safetensors").read_bytes()
    model = LlamaForCausalLM.from_pretrained(llama)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert str(llama) in Path("/proc/self/maps").read_text()
    with torch.no_grad():
        weight += 1
    assert (llama / "model.safetensors").read_bytes() == before
    model.save_pretrained(llama)  # over the files that it lies in
    assert torch.equal(LlamaForCausalLM.from_pretrained(llama).model.layers[0].mlp.up_proj.weight, weight)


# Those of transformers 5: "auto" by default, which asks the config and then the first weight.
DTYPES = {
    "as saved": ({}, {}, torch.bfloat16),
    "auto": ({}, {"dtype": "auto"}, torch.bfloat16),
    "by name": ({}, {"dtype": "float16"}, torch.float16),
    "by itself": ({}, {"dtype": torch.float32}, torch.float32),
    "older name": ({}, {"torch_dtype": torch.float16}, torch.float16),
    "the config's": ({"dtype": "float16"}, {}, torch.float16),
    "the config's older": ({"dtype": None, "torch_dtype": "float16"}, {}, torch.float16),
    "the first weight's": ({"dtype": None}, {}, torch.bfloat16),
}


@pytest.mark.parametrize(("stated", "given", "expected"), DTYPES.values(), ids=DTYPES.keys())
def test_dtypes(llama, tmp_path, stated, given, expected):
    reference(CASES["llama"]).to(torch.bfloat16).save_pretrained(llama)
    change_config(llama, **stated)
    theirs = transformers.LlamaForCausalLM.from_pretrained(llama, **given)
    ours = LlamaForCausalLM.from_pretrained(llama, **given)
    assert {parameter.dtype for parameter in ours.parameters()} == {expected}
    assert ours.dtype is ours.config.dtype is theirs.dtype
    assert_same_weights(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_weights(theirs, transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours"))


def test_dtype_of_what_is_written(folders, tmp_path):
    model = LlamaForCausalLM.from_pretrained(folders / "llama")
    model.save_pretrained(tmp_path, dtype="float16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert model.dtype is torch.float32
    assert_same_weights(model.half(), transformers.LlamaForCausalLM.from_pretrained(tmp_path))


def test_without_head_and_with(folders, tmp_path, caplog):
    """Names have a prefix or none; a head that is not asked for is left out."""
    theirs = transformers.LlamaModel.from_pretrained(folders / "llama")
    body = LlamaModel.from_pretrained(folders / "llama")
    assert_same_weights(theirs, body)
    assert_same_weights(theirs, AutoModel.from_pretrained(folders / "llama"))
    body.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "embed_tokens.weight" in file.keys()  # noqa: SIM118
    assert_same_weights(theirs, transformers.LlamaModel.from_pretrained(tmp_path))
    assert not said(caplog)

    whole = LlamaForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(theirs, whole.model)
    (warning,) = said(caplog)
    assert "lm_head.weight" in warning and "embed_tokens" not in warning
    assert whole.lm_head.weight.std().item() == pytest.approx(SIZES["initializer_range"], rel=0.1)


@torch.no_grad()
def test_new_head(folders, tmp_path, caplog):
    model = AutoModelForSequenceClassification.from_pretrained(
        folders / "qwen2", num_labels=3, pad_token_id=0, dtype="bfloat16"
    )
    (warning,) = said(caplog)
    assert "score.weight" in warning and "model." not in warning
    assert model.score.weight.shape == (3, SIZES["hidden_size"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert_same_weights(
        transformers.Qwen2Model.from_pretrained(folders / "qwen2", dtype="bfloat16"), model.model
    )
    caplog.clear()
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not said(caplog)
    assert theirs.config.num_labels == again.config.num_labels == 3
    assert_same_weights(theirs, again)
    assert_close(again(IDS).logits, theirs(IDS).logits, atol=0.05, rtol=0)
    resized = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True
    )
    assert resized.score.weight.shape[0] == 5


def test_what_there_is_of_a_head_is_kept(folders, tmp_path, caplog):
    theirs = transformers.LlamaForTokenClassification(reference(CASES["llama"]).config)
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["Other"])
    change_tensors(tmp_path, lambda tensors: tensors.pop("score.bias"))
    model = AutoModelForTokenClassification.from_pretrained(tmp_path)
    (warning,) = said(caplog)
    assert "score.bias" in warning and "score.weight" not in warning
    assert torch.equal(model.score.weight, theirs.score.weight)
    assert not model.score.bias.any()


def test_prefix_of_another_class(folders, tmp_path):
    """In checkpoints of some classes the model has another name; in those of others still the usual one."""
    theirs = transformers.LlamaForQuestionAnswering(reference(CASES["llama"]).config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "theirs")
    assert_same_weights(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_weights(theirs, transformers.LlamaForQuestionAnswering.from_pretrained(tmp_path / "ours"))
    from_lm = AutoModelForQuestionAnswering.from_pretrained(folders / "llama")
    assert_same_weights(transformers.LlamaModel.from_pretrained(folders / "llama"), from_lm.transformer)


def test_what_older_versions_saved_along(llama):
    def add(tensors):
        for i in range(3):
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    change_tensors(llama, add)
    assert_same_weights(reference(CASES["llama"]), LlamaForCausalLM.from_pretrained(llama))


def test_the_first_gpt2(folders, tmp_path):
    """OpenAI's has no prefix though it claims to be whole, a mask in every layer, and its head is tied."""
    folder = shutil.copytree(folders / "gpt2", tmp_path / "gpt2")
    tensors = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for name in [name for name in old if name.endswith("attn.c_attn.weight")]:
        stem = name.removesuffix("c_attn.weight")
        old |= {f"{stem}bias": torch.ones(1, 1, 8, 8).tril(), f"{stem}masked_bias": torch.tensor(-1e4)}
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same_weights(reference(CASES["gpt2"]), AutoModelForCausalLM.from_pretrained(folder))
    assert_same_weights(transformers.GPT2Model.from_pretrained(folder), AutoModel.from_pretrained(folder))


def test_experts_together_and_apart(folders, tmp_path):
    """Released files hold each expert's matrices, as we write them; others hold all experts' in one."""
    theirs = reference(CASES["qwen2moe"])
    theirs.save_pretrained(tmp_path, save_original_format=False)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_slice("model.layers.0.mlp.experts.down_proj").get_shape()[0] > 1
    assert_same_weights(theirs, AutoModelForCausalLM.from_pretrained(tmp_path))

    folder = shutil.copytree(folders / "qwen2moe", tmp_path / "apart")
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"missing tensors: {name}$"):
        AutoModelForCausalLM.from_pretrained(folder)
    change_config(folder, num_experts=10**5)
    with pytest.raises(ValueError, match=r"missing tensors: model\.layers\.0\.mlp\.experts\.gate_up_proj"):
        AutoModelForCausalLM.from_pretrained(folder)
    change_config(folder, num_experts=theirs.config.num_experts)
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(3, 5)}))
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, 5\), expected"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_tied_head_may_be_there(folders, tmp_path):
    folder = shutil.copytree(folders / "llama-tied", tmp_path / "tied")
    theirs = reference(CASES["llama-tied"])
    embedding = "model.embed_tokens.weight"
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    assert_same_weights(theirs, LlamaForCausalLM.from_pretrained(folder))
    change_tensors(folder, lambda tensors: tensors.pop(embedding))
    model = LlamaForCausalLM.from_pretrained(folder)
    assert_same_weights(theirs, model)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_untied_by_keyword(llama):
    change_config(llama, tie_word_embeddings=True)
    with pytest.raises(ValueError, match=r"tie_word_embeddings.*lm_head\.weight.*differ"):
        LlamaForCausalLM.from_pretrained(llama)
    model = LlamaForCausalLM.from_pretrained(llama, tie_word_embeddings=False)
    assert_same_weights(reference(CASES["llama"]), model)


def test_fields_by_keyword(folders, llama):
    change_config(llama, colour="green")
    config = AutoConfig.from_pretrained(
        llama, rms_norm_eps=0.1, num_labels=3, colour="red", attn_implementation="eager", dtype="bfloat16"
    )
    assert (config.rms_norm_eps, config.num_labels, config.colour) == (0.1, 3, "red")
    model = AutoModelForCausalLM.from_config(config)
    assert model.model.attn_implementation == "eager"
    assert model.dtype is torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(llama, rms_norm_eps=0.1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(llama, rms_norm_eps=0.1)
    assert_close(model(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)
    given = AutoModelForCausalLM.from_pretrained(llama, config=model.config)
    assert torch.equal(given(IDS).logits, model(IDS).logits)
    assert given.config == model.config and given.config is not model.config
    (llama / "config.json").rename(llama / "model.json")
    elsewhere = AutoModelForCausalLM.from_pretrained(llama, config=folders / "llama")
    assert_same_weights(elsewhere, model)


def test_generation_config(llama):
    (llama / "generation_config.json").write_text('{"max_new_tokens": 3, "eos_token_id": [2, 7]}')
    model = AutoModelForCausalLM.from_pretrained(llama)
    assert (model.generation_config.max_new_tokens, model.generation_config.eos_token_id) == (3, [2, 7])
    model.save_pretrained(llama)
    theirs = transformers.GenerationConfig.from_pretrained(llama)
    assert (theirs.max_new_tokens, theirs.eos_token_id) == (3, [2, 7])
    (llama / "generation_config.json").unlink()
    assert AutoModelForCausalLM.from_pretrained(llama).generation_config.eos_token_id == 2


@torch.no_grad()
def test_packed_weights_are_unpacked(tmp_path):
    """As a GGUF file with blocks of several types reads, so does the checkpoint made of it."""
    from tests.models.files import edited, packed
    from torchgguf.container import open_gguf

    counterpart(reference(CASES["llama-tied"])).save_gguf(tmp_path / "plain.gguf")
    with open_gguf(tmp_path / "plain.gguf") as file:
        matrices = {name: file[name] for name, info in file.tensors.items() if len(info.shape) == 2}
        kinds = ["Q8_0", "Q4_0", "F16"]
        tensors = {name: packed(m, kinds[i % 3]) for i, (name, m) in enumerate(matrices.items())}
        path = edited(tmp_path / "plain.gguf", tmp_path / "packed.gguf", tensors=tensors)
    model = AutoModelForCausalLM.from_pretrained(path)
    model.save_pretrained(tmp_path / "full")
    plain = AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    assert_same_weights(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "full"), plain)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "QuantizedLinear"
    # Folders with both are told apart by gguf_file.
    shutil.copy(path, tmp_path / "full")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "full", gguf_file="packed.gguf").gguf is not None
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "full").gguf is None
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert half.dtype is torch.bfloat16
    assert_same_weights(half, plain.to(torch.bfloat16))


def test_a_failed_save_leaves_the_old_files(llama):
    model = LlamaForCausalLM.from_pretrained(llama)
    before = {path.name: path.read_bytes() for path in llama.iterdir()}
    with torch.no_grad():
        model.lm_head.weight += 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(OSError, match=r"too large: .*model\.safetensors"):
            model.save_pretrained(llama)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in llama.iterdir()} == before


def test_what_asks_for_nothing_is_taken(folders, tmp_path):
    neutral = {"trust_remote_code": False, "use_safetensors": True, "low_cpu_mem_usage": True}
    model = LlamaForCausalLM.from_pretrained(folders / "llama", **neutral)
    model.save_pretrained(tmp_path, safe_serialization=True, push_to_hub=False)
    with pytest.raises(ValueError, match="safe_serialization=False"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(TypeError, match="'colour'"):
        model.save_pretrained(tmp_path, colour="red")


def test_options_of_checkpoints_mean_nothing_for_gguf(tmp_path):
    model = counterpart(reference(CASES["llama"]))
    model.save_gguf(tmp_path / "model.gguf")
    for options in ({"config": model.config}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.*GGUF"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "model.gguf", **options)
    assert (
        AutoModelForCausalLM.from_pretrained(tmp_path / "model.gguf", rms_norm_eps=0.1).config.rms_norm_eps
        == 0.1
    )


def test_config_files(llama, tmp_path):
    config = LlamaConfig.from_pretrained(llama)
    config.save_pretrained(tmp_path / "new")
    theirs, original = (
        transformers.AutoConfig.from_pretrained(folder).to_dict() for folder in (tmp_path / "new", llama)
    )
    assert theirs | {"_name_or_path": original["_name_or_path"]} == original
    assert LlamaConfig.from_pretrained(tmp_path / "new") == config
    with pytest.raises(ValueError, match=r"Qwen2Config must be 'qwen2', got 'llama'"):
        Qwen2ForCausalLM.architecture.config_class.from_pretrained(llama)


def test_log_is_quiet(folders, caplog):
    with caplog.at_level(logging.INFO):
        AutoModelForCausalLM.from_pretrained(folders / "llama")
    assert not said(caplog)
