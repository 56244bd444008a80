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
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.models.folders import assert_same_weights, change_config, said, save_references
from tests.models.tiny import CASES, SIZES, counterpart, reference
from torchgguf.models import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2ForCausalLM,
)

IDS = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where transformers has saved each of the tiny models."""
    return save_references(CASES, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def llama(folders, tmp_path):
    """A copy of a checkpoint, to be changed."""
    return shutil.copytree(folders / "llama", tmp_path / "llama")


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
