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

from tests.models.tiny import CASES, SIZES, counterpart, reference
from torchgguf.models import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    GGUFQuantizationConfig,
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


def change_config(folder, **values):
    """Set values in a config.json; None takes one away."""
    path = folder / "config.json"
    contents = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in contents.items() if value is not None}))


def change_tensors(folder, change):
    """Write the tensors again after a change to the dict of them."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


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
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is no \.safetensors file"):
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
    with pytest.raises(ValueError, match=f"no tensor fills: {name}$"):
        AutoModelForCausalLM.from_pretrained(folder)
    change_config(folder, num_experts=10**5)
    with pytest.raises(ValueError, match=r"no tensor fills: model\.layers\.0\.mlp\.experts\.gate_up_proj"):
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


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self):
        """Say which."""
        return (pytest.fail, ("code was run",))


def cut(name):
    def cut_in_half(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut_in_half


def write(name, contents):
    return lambda folder: (folder / name).write_bytes(contents)


def configured(**values):
    return lambda folder: change_config(folder, **values)


def with_tensors(change):
    return lambda folder: change_tensors(folder, change)


def sharded(change=lambda index, folder: None):
    def shard(folder):
        reference(CASES["llama"]).save_pretrained(folder, max_shard_size="100KB")
        (folder / "model.safetensors").unlink()
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index, folder)
        path.write_text(json.dumps(index))

    return shard


def pickled(make):
    def pickle(folder):
        tensors = dict(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").unlink()
        torch.save(make(tensors), folder / "pytorch_model.bin")

    return pickle


UP = "model.layers.1.mlp.up_proj.weight"
SHARD = "model-00002-of-00006.safetensors"

BROKEN = {
    "no config": (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, r"config\.json in "),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        FileNotFoundError,
        r"model\.safetensors",
    ),
    "config that is no JSON": (
        write("config.json", b'{"model_type": '),
        ValueError,
        r"config\.json is no JSON",
    ),
    "config that is too deep": (write("config.json", b"[" * 10**5), ValueError, r"config\.json is no JSON"),
    "config that is no object": (write("config.json", b"[1]"), ValueError, r"config\.json must hold .* list"),
    "config of nothing": (configured(model_type=None), ValueError, "no model_type"),
    "unknown model_type": (configured(model_type="llamba"), ValueError, r"'llamba' is not supported.*llama"),
    "another model_type": (
        configured(model_type="qwen2"),
        ValueError,
        r"LlamaForCausalLM cannot read .*'qwen2'.*: Qwen2ForCausalLM can$",
    ),
    "field of a wrong type": (configured(hidden_size="64"), ValueError, "hidden_size must be int, .*'64'"),
    "sizes that cannot be": (configured(hidden_size=-64), ValueError, "no model that can be"),
    "layers without end": (configured(num_hidden_layers=10**9), ValueError, "num_hidden_layers=1000000000"),
    "too many layers": (configured(num_hidden_layers=9999), ValueError, "=9999, but there are 30 tensors"),
    "a vocabulary beyond measure": (
        configured(vocab_size=10**18),
        ValueError,
        "vocab_size=1000000000000000000, but there are [0-9]+ weights in all",
    ),
    "heads beyond measure": (configured(head_dim=2**40), ValueError, "head_dim=1099511627776, but"),
    "quantized": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        ValueError,
        "quantized by gptq, which cannot be read",
    ),
    "wrong size by the config": (
        configured(intermediate_size=100),
        ValueError,
        r"up_proj\.weight has shape \(96, 64\), expected \(100, 64\)",
    ),
    "more layers by the config": (
        configured(num_hidden_layers=4),
        ValueError,
        r"no tensor fills: model\.layers\.3\.",
    ),
    "fewer layers by the config": (
        configured(num_hidden_layers=2),
        ValueError,
        r"no parameter takes: model\.layers\.2\.",
    ),
    "missing tensor": (
        with_tensors(lambda tensors: tensors.pop(UP)),
        ValueError,
        rf"does not fit LlamaForCausalLM: no tensor fills: {UP}$",
    ),
    "missing head": (
        with_tensors(lambda tensors: tensors.pop("lm_head.weight")),
        ValueError,
        r"no tensor fills: lm_head\.weight$",
    ),
    "extra tensor": (
        with_tensors(lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)})),
        ValueError,
        r"no parameter takes: model\.extra\.weight$",
    ),
    "extra head": (
        with_tensors(lambda tensors: tensors.update({"score.weight": torch.ones(2)})),
        ValueError,
        r"no parameter takes: score\.weight$",
    ),
    "wrong shape": (
        with_tensors(lambda tensors: tensors.update({UP: torch.ones(96, 63)})),
        ValueError,
        rf"{UP} has shape \(96, 63\), expected \(96, 64\)$",
    ),
    "wrong dtype": (
        with_tensors(lambda tensors: tensors.update({UP: torch.ones(96, 64).to(torch.float8_e4m3fn)})),
        ValueError,
        rf"{UP} is of torch\.float8_e4m3fn$",
    ),
    "truncated": (cut("model.safetensors"), ValueError, r"model\.safetensors is broken"),
    "empty": (write("model.safetensors", b""), ValueError, r"model\.safetensors is broken"),
    "garbage": (write("model.safetensors", b"garbage" * 99), ValueError, r"model\.safetensors is broken"),
    "missing shard": (sharded(lambda index, folder: (folder / SHARD).unlink()), FileNotFoundError, SHARD),
    "truncated shard": (
        sharded(lambda index, folder: cut(SHARD)(folder)),
        ValueError,
        rf"{SHARD} is broken",
    ),
    "index of a tensor that is not there": (
        sharded(lambda index, folder: index["weight_map"].update({"model.x.weight": SHARD})),
        ValueError,
        r"of-00006\.safetensors lacks model\.x\.weight, which model\.safetensors\.index\.json says",
    ),
    "index without a map": (
        sharded(lambda index, folder: index.pop("weight_map")),
        ValueError,
        r"index\.json has no weight_map",
    ),
    "index of files elsewhere": (
        sharded(lambda index, folder: index["weight_map"].update({UP: "../../secret.safetensors"})),
        ValueError,
        r"index\.json: .*'\.\./\.\./secret\.safetensors'",
    ),
    "pickled code": (
        pickled(lambda tensors: {**tensors, UP: Evil()}),
        ValueError,
        r"pytorch_model\.bin holds more than tensors.*_Fail",
    ),
    "pickled list": (pickled(lambda tensors: [*tensors.values()]), ValueError, r"\.bin must hold .* list"),
    "pickled number": (pickled(lambda tensors: {**tensors, "step": 3}), ValueError, r"no tensor is step"),
    "pickled number for a name": (
        pickled(lambda tensors: {**tensors, 7: tensors[UP]}),
        ValueError,
        "no tensor is 7",
    ),
    "pickled without zeros": (
        pickled(lambda tensors: {**tensors, UP: tensors[UP].to_sparse()}),
        ValueError,
        f"no tensor is {UP}",
    ),
    "pickled once for all rows": (
        pickled(lambda tensors: {**tensors, UP: torch.ones(1).expand(96, 64)}),
        ValueError,
        f"no tensor is {UP}",
    ),
    "pickled without values": (
        pickled(lambda tensors: {**tensors, UP: tensors[UP].to("meta")}),
        ValueError,
        f"no tensor is {UP}",
    ),
    "truncated pickle": (
        lambda folder: (pickled(dict)(folder), cut("pytorch_model.bin")(folder)),
        ValueError,
        r"pytorch_model\.bin is broken",
    ),
}


@pytest.mark.parametrize(("harm", "kind", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(llama, harm, kind, words):
    harm(llama)
    with pytest.raises(kind, match=words) as caught:
        LlamaForCausalLM.from_pretrained(llama)
    assert "\n" not in str(caught.value)


STRANGE = [-1, 0, 2**62, 2**70, "x", [1], {"a": 1}, float("nan"), True, None]


@pytest.mark.parametrize("name", ["llama-yarn", "gpt2"])
@torch.no_grad()
def test_strange_configs(folders, tmp_path, name):
    """Whatever stands in a config.json, it is refused by the one error there is, or makes a sound model."""
    folder = shutil.copytree(folders / name, tmp_path / name)
    stated = json.loads((folder / "config.json").read_text())
    rotary = stated.get("rope_parameters", {})
    strange = [{key: value} for key in (*stated, "num_labels", "rope_scaling") for value in STRANGE]
    strange += [{"rope_parameters": {**rotary, key: value}} for key in rotary for value in STRANGE]
    for values in strange:
        (folder / "config.json").write_text(json.dumps({**stated, **values}))
        try:
            model = AutoModelForCausalLM.from_pretrained(folder)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000
        else:
            unsound = any(value in (-1, 2**62) for value in values.values())  # epsilons, of any size
            assert unsound or model(IDS[:, :6]).logits.isfinite().all(), values


REFUSED = {
    "unknown": ({"colour": "red"}, TypeError, "'colour'.*LlamaConfig"),
    "remote code": ({"trust_remote_code": True}, ValueError, "trust_remote_code=True"),
    "pickles wanted": ({"use_safetensors": False}, ValueError, "use_safetensors=False"),
    "variant": ({"variant": "fp16"}, ValueError, "variant='fp16'"),
    "packed and unpacked": (
        {"dequantize": True, "quantization_config": GGUFQuantizationConfig("Q8_0")},
        ValueError,
        "dequantize=True contradicts quantization_config=",
    ),
    "4 bits": ({"load_in_4bit": True}, ValueError, "load_in_4bit"),
    "attentions": ({"output_attentions": True}, ValueError, "output_attentions"),
    "dtype": ({"dtype": "float8_e4m3fn"}, ValueError, "float8_e4m3fn"),
    "attention": ({"attn_implementation": "magic"}, ValueError, "magic"),
    "labels": ({"num_labels": 3, "id2label": {0: "a"}}, ValueError, "num_labels=3.*1 labels"),
}


@pytest.mark.parametrize(("options", "kind", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(folders, options, kind, words):
    for model_class in (LlamaForCausalLM, AutoModelForCausalLM):
        with pytest.raises(kind, match=words):
            model_class.from_pretrained(folders / "llama", **options)


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
    with pytest.raises(ValueError, match=r"Qwen2Config is for .*'qwen2'.*'llama'"):
        Qwen2ForCausalLM.architecture.config_class.from_pretrained(llama)


def test_log_is_quiet(folders, caplog):
    with caplog.at_level(logging.INFO):
        AutoModelForCausalLM.from_pretrained(folders / "llama")
    assert not said(caplog)
