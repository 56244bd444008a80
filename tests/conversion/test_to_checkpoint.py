"""Files become folders that transformers loads: the same weights, logits, tokens and ways to draw them."""

import json
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.conversion.folders import GENERATION, describe, publish, rule_of
from tests.models.files import edited
from tests.models.tiny import CASES, reference
from torchgguf.container import GGUFError, TensorType, open_gguf, plan_split, write_split
from torchgguf.conversion.from_checkpoint import convert_to_gguf
from torchgguf.conversion.to_checkpoint import convert_to_checkpoint
from torchgguf.tokenization import AutoTokenizer

# Files of these architectures have a head, whosever its weights are.
STATED_HEADS = ("minimax-tied-odd-heads", "qwen2moe-tied")
# Of models whose norms multiply by 1 + weight.
UNIT_OFFSETS = ("gemma", "nemotron", "qwen35", "qwen3next")
# Of models whose weights files contain times a factor.
SCALED = ("falconh1",)
IDS = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder."""
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", [name for name in CASES if "sliding" not in name])
@torch.no_grad()
def test_there_and_back(name, tmp_path):
    """Through a file and back each tensor is the same to the last bit, and each logit."""
    original = reference(CASES[name])
    folder = publish(name, tmp_path / "tiny")
    convert_to_gguf(folder, tmp_path / "x.gguf", pre=rule_of(name))
    assert convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back") is torch.float32
    before, after = weights(folder), weights(tmp_path / "back")
    if name in STATED_HEADS:
        before["lm_head.weight"] = before["model.embed_tokens.weight"]
    assert after.keys() == before.keys()
    for tensor, value in before.items():
        if name.startswith(SCALED):  # in files and after them the factors are 1: compared by the logits
            assert after[tensor].shape == value.shape
        elif "norm" in tensor and name.startswith(UNIT_OFFSETS):  # files contain 1 + weight, rounded
            assert_close(after[tensor], value, atol=2e-7, rtol=0)
        elif tensor.endswith(".A_log"):  # files contain -exp(A_log), rounded
            assert_close(after[tensor], value, atol=1e-6, rtol=1e-6)
        elif tensor.endswith("embed_tokens_per_layer.weight"):  # files contain a row for each token
            rows = after[tensor].split([len(value), len(after[tensor]) - len(value)])
            assert torch.equal(rows[0], value) and not rows[1].any()
        else:
            assert torch.equal(after[tensor], value), tensor
    again, info = type(original).from_pretrained(
        tmp_path / "back", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    assert_close(again(IDS).logits, original(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen2moe-tied", "gpt2"])
def test_halves_stay_halves(name, dtype, tmp_path):
    """Vectors too, which files widen."""
    folder = publish(name, tmp_path / "tiny", dtype)
    convert_to_gguf(folder, tmp_path / "x.gguf", pre=rule_of(name))
    assert convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back") is dtype
    before, after = weights(folder), weights(tmp_path / "back")
    for tensor, value in before.items():
        assert after[tensor].dtype is dtype and torch.equal(after[tensor], value), tensor
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == str(dtype)[6:]


def test_halves_that_would_lose_something(tmp_path):
    """One vector of weights that halves do not hold makes all of them wide."""
    folder = publish("qwen2", tmp_path / "tiny", torch.bfloat16)
    convert_to_gguf(folder, tmp_path / "x.gguf", pre="qwen2")
    finer = torch.linspace(0.5, 1.5, 64)
    edited(tmp_path / "x.gguf", tmp_path / "finer.gguf", tensors={"output_norm.weight": finer})
    assert convert_to_checkpoint(tmp_path / "finer.gguf", tmp_path / "back") is torch.float32
    after = weights(tmp_path / "back")
    assert torch.equal(after["model.norm.weight"], finer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.float16])
@torch.no_grad()
def test_packed_weights(tmp_path, dtype):
    """What they are unpacked to is what the gguf package makes of them."""
    folder = publish("qwen2", tmp_path / "tiny")
    convert_to_gguf(folder, tmp_path / "x.gguf", pre="qwen2", quantization="Q8_0")
    convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back", dtype=dtype)
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert packed["blk.1.ffn_up.weight"].tensor_type == gguf.GGMLQuantizationType.Q8_0
    after = weights(tmp_path / "back")
    for ours, theirs in {
        "model.layers.1.mlp.up_proj.weight": "blk.1.ffn_up.weight",
        "model.layers.2.self_attn.k_proj.weight": "blk.2.attn_k.weight",
        "model.layers.2.self_attn.k_proj.bias": "blk.2.attn_k.bias",
        "lm_head.weight": "output.weight",
    }.items():
        expected = gguf.quants.dequantize(packed[theirs].data, packed[theirs].tensor_type)
        assert torch.equal(after[ours], torch.from_numpy(expected.copy()).to(kind)), ours
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert model.dtype is kind and model(IDS).logits.isfinite().all()


def test_several_files(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    convert_to_gguf(folder, tmp_path / "x.gguf")
    back = tmp_path / "back"
    convert_to_checkpoint(tmp_path / "x.gguf", back, max_shard_size="100KB")
    shards = sorted(back.glob("model-*.safetensors"))
    assert len(shards) > 3
    for shard in shards:
        with safe_open(shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    again = transformers.AutoModelForCausalLM.from_pretrained(back)
    for name, value in reference(CASES["llama"]).state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    convert_to_checkpoint(tmp_path / "x.gguf", back)  # what the first has left is gone
    assert [path.name for path in back.glob("model*")] == ["model.safetensors"]


def test_a_split_file(tmp_path):
    convert_to_gguf(publish("llama", tmp_path / "tiny"), tmp_path / "x.gguf")
    with open_gguf(tmp_path / "x.gguf") as file:
        write_split(
            str(tmp_path / "y"), file.metadata, file.sources(), plan_split(file.tensors, max_tensors=9)
        )
    parts = sorted(tmp_path.glob("y-*.gguf"))
    assert len(parts) > 2
    convert_to_checkpoint(parts[0], tmp_path / "back")
    after = weights(tmp_path / "back")
    for name, value in reference(CASES["llama"]).state_dict().items():
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_what_belongs_to_the_weights(name, tmp_path):
    """The tokenizer as transformers reads it, its chat template, and how to draw tokens."""
    folder = publish(name, tmp_path / "tiny")
    describe(folder)
    convert_to_gguf(folder, tmp_path / "x.gguf", pre=rule_of(name))
    convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back")
    text = "The licenses for most software and other practical works, 1989 ü."
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    ours = AutoTokenizer.from_pretrained(folder)
    assert theirs(text)["input_ids"] == ours(text)["input_ids"]
    assert theirs.decode(theirs.encode(text), skip_special_tokens=True) == text
    assert theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"
    how = transformers.GenerationConfig.from_pretrained(tmp_path / "back")
    drawing = {key: value for key, value in GENERATION.items() if key != "eos_token_id"}
    assert {key: getattr(how, key) for key in (*drawing, "temperature")} == {**drawing, "temperature": 0.7}


def test_what_is_said_of_a_model(llama, tmp_path):
    """A card says it, and the gguf package, which llama.cpp's converter asks, finds it there again."""
    texts = {
        "general.name": "Tiny: a 'test'",
        "general.author": "Ä. Üthor",
        "general.version": "1.0",
        "general.organization": "someone",
        "general.description": "Two\nlines, and ---\na third.",
        "general.finetune": "instruct",
        "general.basename": "tiny",
        "general.size_label": "1K",
        "general.license": "other",
        "general.license.name": "mine",
        "general.license.link": "https://example.org/licence",
        "general.source.url": "https://example.org/source",
        "general.source.repo_url": "https://example.org/source.git",
    }
    lists = {"general.tags": ["tiny", "no"], "general.languages": ["en", "no"]}
    sources = {
        "general.base_model.0.name": "Base 1B",
        "general.base_model.0.repo_url": "https://example.org/base",
        "general.base_model.1.name": "Other",
        "general.dataset.0.name": "Texts",
    }
    counts = {"general.base_model.count": 2, "general.dataset.count": 1}
    stated = {**texts, **lists, **sources, **counts}
    convert_to_checkpoint(edited(llama, tmp_path / "said.gguf", stated), tmp_path / "back")
    found = gguf.Metadata.load(model_path=tmp_path / "back")
    writer = gguf.GGUFWriter(None, "llama")
    found.set_gguf_meta_model(writer)
    again = {key: value.value for key, value in writer.kv_data[0].items()}
    assert {key: again.get(key) for key in stated} == stated
    convert_to_gguf(tmp_path / "back", tmp_path / "again.gguf", pre=rule_of("llama"))
    with open_gguf(tmp_path / "again.gguf") as file:
        assert {key: file.metadata.get(key) for key in stated} == stated


def test_without_a_tokenizer(tmp_path):
    folder = publish("llama", tmp_path / "tiny")
    convert_to_gguf(folder, tmp_path / "with.gguf")
    convert_to_gguf(folder, tmp_path / "without.gguf", tokenizer=False)
    convert_to_checkpoint(tmp_path / "without.gguf", tmp_path / "a")
    convert_to_checkpoint(tmp_path / "with.gguf", tmp_path / "b", tokenizer=False)
    for back in (tmp_path / "a", tmp_path / "b"):
        names = {path.name for path in back.iterdir()}
        assert names == {"README.md", "config.json", "generation_config.json", "model.safetensors"}


def test_a_file_in_a_folder(tmp_path):
    convert_to_gguf(publish("gpt2", tmp_path / "tiny"), tmp_path / "x.gguf", pre="gpt-2")
    convert_to_checkpoint(tmp_path, tmp_path / "back", gguf_file="x.gguf")
    assert weights(tmp_path / "back").keys() == load_file(tmp_path / "tiny" / "model.safetensors").keys()


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A file, to be broken."""
    folder = tmp_path_factory.mktemp("files")
    return convert_to_gguf(publish("llama", folder / "llama"), folder / "llama.gguf")


@pytest.mark.parametrize(
    ("stated", "drawing"),
    [
        ({"temp": 0.0, "top_k": 20, "penalty_repeat": 1.5}, {"do_sample": False, "repetition_penalty": 1.5}),
        ({"temp": 0.6, "top_k": 0}, {"do_sample": True, "temperature": 0.6, "top_k": 0}),
        ({}, {"do_sample": False}),
    ],
    ids=["greedy", "sampling", "nothing stated"],
)
def test_how_to_draw_tokens(llama, tmp_path, stated, drawing):
    """A temperature of 0 is llama.cpp's word for no drawing."""
    edited(llama, tmp_path / "x.gguf", {f"general.sampling.{name}": value for name, value in stated.items()})
    convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back")
    how = transformers.GenerationConfig.from_pretrained(tmp_path / "back").to_diff_dict()
    names = ("do_sample", "temperature", "top_k", "repetition_penalty")
    assert {"do_sample": False, **{name: how[name] for name in names if name in how}} == drawing


REFUSED = {
    "dtype": ({}, {}, {"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    "shard size": ({}, {}, {"max_shard_size": "a lot"}, "a lot"),
    "architecture": ({"general.architecture": "llamba"}, {}, {}, "architecture 'llamba' is not supported"),
    "missing tensor": ({}, {"blk.1.ffn_up.weight": None}, {}, r"missing tensors: blk\.1\.ffn_up\.weight"),
    "wrong shape": ({}, {"blk.1.ffn_up.weight": torch.ones(3, 64)}, {}, r"blk\.1\.ffn_up\.weight has shape"),
    "tokenizer": ({"tokenizer.ggml.model": "odd"}, {}, {}, "odd"),
}


@pytest.mark.parametrize(("metadata", "tensors", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(llama, tmp_path, metadata, tensors, options, words):
    edited(llama, tmp_path / "x.gguf", metadata, tensors)
    with pytest.raises((ValueError, GGUFError), match=words) as caught:
        convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "back", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_an_older_checkpoint_is_replaced(llama, tmp_path):
    """All of it, and nothing else that is in the folder."""
    back = publish("llama", tmp_path / "back")
    describe(back)
    (back / "additional_chat_templates").mkdir()
    older = ["vocab.json", "merges.txt", "special_tokens_map.json", "additional_chat_templates/rag.jinja"]
    for name in (*older, "notes.txt"):
        (back / name).write_text("mine")
    with open_gguf(llama) as file:
        assert file.tensors["output.weight"].type is TensorType.F32
    convert_to_checkpoint(llama, back, dtype="bfloat16", tokenizer=False)
    assert all((back / name).exists() for name in (*older, "tokenizer.model", "chat_template.jinja"))
    convert_to_checkpoint(llama, back, dtype="bfloat16")
    model = {"config.json", "generation_config.json", "model.safetensors"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    files = {path.name for path in back.rglob("*") if path.is_file()}
    assert files == {"notes.txt", "README.md"} | model | tokenizer
    assert transformers.AutoTokenizer.from_pretrained(back).chat_template is None
    assert {value.dtype for value in weights(back).values()} == {torch.bfloat16}
