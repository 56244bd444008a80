"""Files that were made to cost time or memory, or to bring a type where none is expected: one error, soon."""

import json
import shutil
import struct
import zipfile

import pytest
import torch

from tests.bounds import bounded
from tests.models.files import edited, packed
from tests.models.folders import change_config, change_tensors
from tests.models.tiny import CASES, counterpart, reference
from torchgguf.container import GGUFError, TensorSource, TensorType
from torchgguf.models import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    CheckpointError,
)

NAMES = (
    *("llama", "bloom", "phi", "qwen2moe", "gpt2", "gemma3", "cohere-norms"),
    *("exaone4", "gemma4", "granitehybrid", "jamba", "qwen35"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A GGUF file and a checkpoint of each kind, and everything imported that loads them."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in NAMES:
        model = reference(CASES[name])
        counterpart(model).save_gguf(folder / f"{name}.gguf")
        model.save_pretrained(folder / name)
        AutoModelForCausalLM.from_pretrained(folder / f"{name}.gguf")
        AutoModelForCausalLM.from_pretrained(folder / name)
    return folder


def refused(path, words, kind, load=AutoModelForCausalLM.from_pretrained, size=0):
    """Loading is one error of one line that contains the words and names the place, within the bounds."""
    with bounded(size), pytest.raises(kind, match=words) as caught:
        load(path)
    assert type(caught.value) is kind and str(path) in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


def zeros(type_name, *shape):
    """A packed tensor of zeros, of a type that nothing needs to pack."""
    size, width = TensorType[type_name], {"Q8_1": 36, "Q8_K": 292, "Q8_0": 34, "Q4_0": 18}[type_name]
    block = 256 if type_name == "Q8_K" else 32
    rows = torch.zeros(*shape[:-1], shape[-1] // block * width, dtype=torch.uint8)
    return TensorSource(shape, size, lambda: rows)


def many(count, name="t{}"):
    return {name.format(i): torch.ones(1) for i in range(count)}


GGUF = {
    "layers, and other tensors": (
        "llama",
        {"block_count": 400},
        many(400),
        "400 layers, but .* tensors of 3",
    ),
    "layers without end, of kinds": ("exaone4", {"block_count": 1 << 31}, {}, "block_count = 2147483648"),
    "layers without end, of sizes": ("gemma4", {"block_count": 1 << 31}, {}, "block_count = 2147483648"),
    "layers without end, with a window": (
        "llama",
        {
            "block_count": 1 << 31,
            "attention.sliding_window": 4,
            "attention.sliding_window_pattern": [1, 1, 1],
        },
        {},
        "block_count = 2147483648",
    ),
    "shared keys without end": (
        "gemma4",
        {"attention.shared_kv_layers": 1 << 31},
        {},
        "shared_kv_layers must be from 0",
    ),
    "sizes of layers that are lists": (
        "gemma4",
        {"feed_forward_length": [[96]] * 8},
        {},
        "must be one number or 8, got 8: ",
    ),
    "heads that are lists": ("jamba", {"attention.head_count": [[4]] * 4}, {}, "head_count must be one int"),
    "heads of states that are lists": (
        "qwen35",
        {"attention.head_count": [[4]] * 5},
        {},
        "head_count must be one int",
    ),
    "heads of no size": (
        "granitehybrid",
        {"attention.head_count": 65, "attention.key_length": 0},
        {},
        "size of a head must be above 0",
    ),
    "layers beyond any model": ("llama", {"block_count": 20000}, many(20000), "must be at most 512"),
    "layers of one tensor each": (
        "llama",
        {"block_count": 512},
        many(512, "blk.{}.attn_norm.weight"),
        "missing tensors",
    ),
    "layers of experts of one tensor each": (
        "qwen2moe",
        {"block_count": 512},
        many(512, "blk.{}.attn_norm.weight"),
        "missing tensors",
    ),
    "frequencies without end": (
        "llama",
        {},
        {"rope_freqs.weight": torch.full((1 << 22,), 1.5)},
        r"rope_freqs\.weight has shape \(4194304,\)",
    ),
    "frequencies and heads without end": (
        "llama",
        {"attention.key_length": 1 << 23, "attention.value_length": 1 << 23, "rope.dimension_count": 1 << 23},
        {"rope_freqs.weight": torch.full((1 << 22,), 1.5), "x": zeros("Q4_0", 1 << 23)},
        "rotated size of a head must be at most 65536, got 8388608",
    ),
    "heads without end": (
        "bloom",
        {"attention.head_count": 1 << 23, "attention.head_count_kv": 1 << 23},
        {"x": zeros("Q4_0", 1 << 23)},
        "n_head=8388608",
    ),
    "frequencies in rows": (
        "llama",
        {},
        {"rope_freqs.weight": torch.full((8, 8), 1.5)},
        r"rope_freqs\.weight has shape \(8, 8\)",
    ),
    "packed frequencies": (
        "llama",
        {"rope.dimension_count": 64, "attention.key_length": 64, "attention.value_length": 64},
        {"rope_freqs.weight": zeros("Q8_0", 32)},
        r"rope_freqs\.weight must be .* got Q8_0",
    ),
    "whole frequencies": (
        "llama",
        {},
        {"rope_freqs.weight": torch.ones(8, dtype=torch.int32)},
        r"rope_freqs\.weight must be .* got I32",
    ),
    "packed norm": (
        "llama",
        {},
        {"blk.0.ffn_norm.weight": zeros("Q8_0", 64)},
        r"ffn_norm\.weight is packed as Q8_0",
    ),
    "norm of an internal type": (
        "llama",
        {},
        {"blk.0.ffn_norm.weight": zeros("Q8_1", 64)},
        r"ffn_norm\.weight is packed as Q8_1",
    ),
    "matrix of an internal type": (
        "llama",
        {},
        {"blk.0.ffn_up.weight": zeros("Q8_1", 96, 64)},
        r"ffn_up\.weight has the unsupported type Q8_1",
    ),
    "packed bias, its rows in another order": (
        "bloom",
        {},
        {"blk.0.attn_qkv.bias": zeros("Q4_0", 192)},
        r"attn_qkv\.bias is packed as Q4_0",
    ),
    "packed bias": (
        "gpt2",
        {},
        {"blk.0.attn_qkv.bias": zeros("Q8_0", 192)},
        r"attn_qkv\.bias is packed as Q8_0",
    ),
    "another scaling": ("phi", {"rope.scaling.type": "yarn"}, {}, r"'yarn' is not supported.*longrope"),
    "scaling of many words": ("llama", {"rope.scaling.type": "\n" * (1 << 24)}, {}, "is not supported"),
    "keys without end": ("llama", {"x\n" * 20000 + str(i): i for i in range(99)}, {}, "unknown keys"),
    "names with control characters": ("llama", {}, many(2, "\x1b[31m{}\n"), "unused tensors"),
}


@pytest.mark.parametrize(("name", "values", "tensors", "words"), GGUF.values(), ids=GGUF)
def test_gguf(files, tmp_path, name, values, tensors, words):
    key = {"phi": "phi3"}.get(name, name)
    values = {f"{key}.{end}": value for end, value in values.items()}
    path = edited(files / f"{name}.gguf", tmp_path / "x.gguf", values, tensors)
    refused(path, words, GGUFError, size=path.stat().st_size)


def test_a_router_may_be_packed(files, tmp_path):
    """Of the layers that have no packed form, only vectors are refused."""
    gate = packed(torch.randn(7, 64), "Q8_0")
    path = edited(files / "qwen2moe.gguf", tmp_path / "x.gguf", {}, {"blk.0.ffn_gate_inp.weight": gate})
    model = AutoModelForCausalLM.from_pretrained(path)
    assert model.model.layers[0].mlp.gate.weight.dtype is torch.float32


def text(value):
    return lambda folder: (folder / "config.json").write_bytes(value)


def configured(**values):
    return lambda folder: change_config(folder, **values)


def nulls(name):
    def state(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, name: None}))

    return state


def safetensors(change):
    """Change the header of a file of weights, as its JSON object, its size or its bytes."""

    def changed(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header, stated = json.loads(data[8 : 8 + size]), None
        made = change(header, len(data) - 8 - size)
        if isinstance(made, int):
            stated, made = made, None
        new = json.dumps(header).encode() if made is None else made
        stated = len(new) if stated is None else stated
        path.write_bytes(struct.pack("<Q", stated) + new + data[8 + size :])

    return changed


def empty(count, name="t{}"):
    def add(header, end):
        none = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
        header |= {name.format(i): none for i in range(count)}

    return safetensors(add)


def altered(**values):
    def alter(header, end):
        header["lm_head.weight"] |= values

    return safetensors(alter)


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def experts(count):
    """Name all parts of the first expert of each layer, and state many experts."""
    return both(
        configured(num_experts=count, num_experts_per_tok=1, num_hidden_layers=400, layer_types=None),
        empty(400, "model.layers.1{:03}.mlp.experts.0.gate_proj.weight"),
        empty(count, "x{}"),
    )


def archive(method, pickle_size=100):
    """A .bin file that is a zip archive of another making."""

    def write(folder):
        (folder / "model.safetensors").unlink()
        with zipfile.ZipFile(folder / "pytorch_model.bin", "w", method) as file:
            file.writestr("archive/data.pkl", b"\x80\x02" + b"]" * pickle_size)
            file.writestr("archive/version", b"3\n")

    return write


def index(**names):
    def write(folder):
        shutil.move(folder / "model.safetensors", folder / "model-1.safetensors")
        names_of = {"weight_map": {"lm_head.weight": "model-1.safetensors", **names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(names_of))

    return write


CHECKPOINTS = {
    "labels without end": ("llama", configured(num_labels=10**6), "num_labels=1000000"),
    "labels that are lists": ("llama", configured(id2label={"0": [], "1": {}}), "id2label must be dict"),
    "numbers of labels that are lists": ("llama", configured(label2id={"a": [0]}), "label2id must be dict"),
    "kinds of layers that are dicts": (
        "qwen2moe",
        configured(layer_types=[{}, {}]),
        r"layer_types must be list\[str\]",
    ),
    "ends that are lists": ("llama", configured(eos_token_id=[[1]]), "eos_token_id must be int or list"),
    "classes that are lists": ("llama", configured(architectures=[["a"]]), "architectures must be list"),
    "layers without experts, again and again": (
        "qwen2moe",
        configured(mlp_only_layers=[9] * 100_000),
        "mlp_only_layers must name at most",
    ),
    "no step": ("qwen2moe", configured(decoder_sparse_step=0), "decoder_sparse_step must"),
    "heads of no size": ("gemma3", configured(head_dim=0), "head_dim must be even and at least 2"),
    "heads of less than no size": ("llama", configured(head_dim=-2), "head_dim must be even and at least 2"),
    "scores without a scale": (
        "gemma3",
        configured(query_pre_attn_scalar=-1),
        "query_pre_attn_scalar must be at least 1",
    ),
    "no kinds of layers": (
        "gemma3",
        configured(num_hidden_layers=0, layer_types=[]),
        "unused tensors",
    ),
    "norms without an epsilon": ("cohere-norms", nulls("layer_norm_eps"), "layer_norm_eps must be float"),
    "logits without a scale": ("cohere-norms", nulls("logit_scale"), "logit_scale must be float"),
    "spread below zero": (
        "llama",
        configured(initializer_range=-1.0),
        "initializer_range must be 0",
    ),
    "layers": ("llama", both(configured(num_hidden_layers=400), empty(20000)), "400 layers, but .* of 3"),
    "layers beyond any model": (
        "llama",
        both(configured(num_hidden_layers=20000), empty(20000)),
        "num_hidden_layers=20000",
    ),
    "empty layers": (
        "llama",
        both(configured(num_hidden_layers=512), empty(509, "model.layers.3{:03}.mlp.up_proj.weight")),
        "missing tensors",
    ),
    "parts of experts": ("qwen2moe", experts(20000), "missing tensors"),
    "as many tensors as Qwen3-235B has": ("llama", empty(36_945), "unused tensors"),
    "tensors without end": ("llama", empty(45000), "450[0-9]+ tensors exceed the limit of 40960"),
    "a header without end": ("llama", empty(200_000), "its header of [0-9]+ bytes exceeds"),
    "a header beyond the file": ("llama", safetensors(lambda header, end: 1 << 62), "its header of"),
    "a header that ends early": ("llama", safetensors(lambda header, end: 9), "is broken"),
    "a header that is a list": ("llama", safetensors(lambda header, end: b"[1]"), "is broken"),
    "a header that is deep": ("llama", safetensors(lambda header, end: b"[" * 100_000), "is broken"),
    "a header of bytes": ("llama", safetensors(lambda header, end: b"\xff" * 99), "is broken"),
    "offsets beyond the file": ("llama", altered(data_offsets=[0, 1 << 40]), "is broken"),
    "offsets in reverse": ("llama", altered(data_offsets=[400, 0]), "is broken"),
    "a shape beyond the bytes": ("llama", altered(shape=[1 << 31, 1 << 31]), "is broken"),
    "a shape beyond all numbers": ("llama", altered(shape=[1 << 63, 1 << 63]), "is broken"),
    "an unknown dtype": ("llama", altered(dtype="F33"), "is broken"),
    "an odd dtype": ("llama", altered(dtype="F8_E8M0", data_offsets=[0, 25600]), "is broken|unsupported"),
    "a number": ("llama", text(b"1"), "must contain one JSON object, got int"),
    "a list": ("llama", text(b"[]"), "must contain one JSON object, got list"),
    "no JSON": ("llama", text(b"{"), "is not JSON"),
    "no text": ("llama", text(b'{"a": "\xff"}'), "is not JSON"),
    "digits without end": ("llama", text(b'{"hidden_size": ' + b"9" * 100_000 + b"}"), "is not JSON"),
    "deep": ("llama", text(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"), "nested more than 64 deep"),
    "deeper": ("llama", text(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "is not JSON"),
    "values without end": (
        "llama",
        text(b'{"a":[' + b"[]," * 1_000_000 + b"0]}"),
        "contains more values",
    ),
    "text without end": ("llama", text(b'{"a":"' + b"a" * (1 << 25) + b'"}'), "is larger than any"),
    "wide text": ("llama", text(('{"a":"' + "\U0001f600" * (1 << 21) + '"}').encode()), "is larger than any"),
    "not a number": (
        "llama",
        text(b'{"model_type": "llama", "hidden_size": NaN}'),
        "hidden_size must be int",
    ),
    "half a character": ("llama", text(b'{"model_type": "\\ud800"}'), "model_type '.ud800' is not supported"),
    "quantized by half a character": (
        "llama",
        configured(quantization_config={"quant_method": "\ud800\n"}),
        "is quantized by",
    ),
    "a folder for a shard": ("llama", index(x="..safetensors/../a.safetensors"), "in the same folder"),
    "an end of a shard's name": ("llama", index(x="a\0.safetensors"), "in the same folder"),
    "two lines in a shard's name": ("llama", index(x="a\n.safetensors"), "in the same folder"),
    "half a character in a shard's name": ("llama", index(x="\ud800.safetensors"), "in the same folder"),
    "a shard that is a number": ("llama", index(x=7), "in the same folder"),
    "compressed": ("llama", archive(zipfile.ZIP_DEFLATED, 1 << 28), "it is compressed"),
    "a large pickle": ("llama", archive(zipfile.ZIP_STORED, 1 << 22), "its pickle of 4194306 bytes"),
    "half a pickle": ("llama", archive(zipfile.ZIP_STORED), "is broken"),
}


@pytest.mark.parametrize(("name", "change", "words"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints(files, tmp_path, name, change, words):
    folder = shutil.copytree(files / name, tmp_path / "x")
    change(folder)
    refused(folder, words, CheckpointError, size=sum(file.stat().st_size for file in folder.iterdir()))


def test_a_new_head_must_not_exceed_what_is_stored(files, tmp_path):
    folder = shutil.copytree(files / "llama", tmp_path / "x")
    change_config(folder, num_labels=1 << 16, hidden_size=1 << 10)
    wide = {
        "model.embed_tokens.weight": (400, 1 << 10),
        "lm_head.weight": (400, 1 << 10),
        "model.norm.weight": (1 << 10,),
    }

    def widen(tensors):
        for name in [*tensors]:
            if "layers" in name:
                del tensors[name]
            else:
                tensors[name] = torch.zeros(wide[name])

    change_tensors(folder, widen)
    change_config(folder, num_hidden_layers=0)
    load = AutoModelForSequenceClassification.from_pretrained
    refused(folder, "a new head of 67108864 weights, but", CheckpointError, load)
    assert load(folder, num_labels=3).score.weight.shape == (3, 1 << 10)


def test_the_file_is_not_blamed_for_what_the_caller_sets(files):
    with pytest.raises(ValueError, match="hidden_size must be int") as caught:
        AutoConfig.from_pretrained(files / "llama", hidden_size="64")
    assert not isinstance(caught.value, CheckpointError)


def test_labels_that_have_names_are_as_many_as_these(files, tmp_path):
    folder = shutil.copytree(files / "llama", tmp_path / "x")
    change_config(folder, id2label={str(i): f"a{i}" for i in range(70_000)}, num_labels=70_000)
    assert AutoConfig.from_pretrained(folder).num_labels == 70_000


def test_the_caller_may_mend_a_file(files, tmp_path):
    folder = shutil.copytree(files / "llama", tmp_path / "x")
    change_config(folder, num_labels=10**6)
    assert AutoConfig.from_pretrained(folder, num_labels=3).num_labels == 3
