"""What a checkpoint has too much, too little or wrong is one error that names it; so is what is not done."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.models.folders import change_config, change_tensors
from tests.models.tiny import CASES, reference
from torchgguf.models import AutoModelForCausalLM, GGUFQuantizationConfig, LlamaForCausalLM, LlamaModel

IDS = torch.randint(0, 400, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where transformers has saved tiny models."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("llama", "llama-yarn", "gpt2"):
        reference(CASES[name]).save_pretrained(folder / name)
    return folder


@pytest.fixture
def llama(folders, tmp_path):
    """A copy of a checkpoint, to be changed."""
    return shutil.copytree(folders / "llama", tmp_path / "llama")


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
        r"config\.json is not JSON",
    ),
    "config that is too deep": (write("config.json", b"[" * 10**5), ValueError, r"config\.json is not JSON"),
    "config that is no object": (
        write("config.json", b"[1]"),
        ValueError,
        r"config\.json must contain .* list",
    ),
    "config of nothing": (configured(model_type=None), ValueError, "no model_type"),
    "unknown model_type": (configured(model_type="llamba"), ValueError, r"'llamba' is not supported.*llama"),
    "another model_type": (
        configured(model_type="qwen2"),
        ValueError,
        r"LlamaForCausalLM does not load .*'qwen2'.*: use Qwen2ForCausalLM$",
    ),
    "field of a wrong type": (configured(hidden_size="64"), ValueError, "hidden_size must be int, .*'64'"),
    "sizes that cannot be": (configured(hidden_size=-64), ValueError, "describes an invalid model"),
    "layers without end": (configured(num_hidden_layers=10**9), ValueError, "num_hidden_layers=1000000000"),
    "too many layers": (
        configured(num_hidden_layers=400),
        ValueError,
        "the config states 400 layers, but there are tensors of 3$",
    ),
    "a vocabulary beyond measure": (
        configured(vocab_size=10**18),
        ValueError,
        "vocab_size=1000000000000000000, but there are [0-9]+ weights in all",
    ),
    "heads beyond measure": (configured(head_dim=2**40), ValueError, "head_dim=1099511627776 is invalid"),
    "width beyond the weights": (
        configured(intermediate_size=2**40),
        ValueError,
        "intermediate_size=1099511627776, but",
    ),
    "quantized": (
        configured(quantization_config={"quant_method": "gptq", "bits": 4}),
        ValueError,
        "quantized by gptq, which is unsupported",
    ),
    "wrong size by the config": (
        configured(intermediate_size=100),
        ValueError,
        r"up_proj\.weight has shape \(96, 64\), expected \(100, 64\)",
    ),
    "more layers by the config": (
        configured(num_hidden_layers=4),
        ValueError,
        "the config states 4 layers, but there are tensors of 3$",
    ),
    "fewer layers by the config": (
        configured(num_hidden_layers=2),
        ValueError,
        r"unused tensors: model\.layers\.2\.",
    ),
    "missing tensor": (
        with_tensors(lambda tensors: tensors.pop(UP)),
        ValueError,
        rf"do not match LlamaForCausalLM: missing tensors: {UP}$",
    ),
    "missing head": (
        with_tensors(lambda tensors: tensors.pop("lm_head.weight")),
        ValueError,
        r"missing tensors: lm_head\.weight$",
    ),
    "extra tensor": (
        with_tensors(lambda tensors: tensors.update({"model.extra.weight": torch.ones(2)})),
        ValueError,
        r"unused tensors: model\.extra\.weight$",
    ),
    "extra head": (
        with_tensors(lambda tensors: tensors.update({"score.weight": torch.ones(2)})),
        ValueError,
        r"unused tensors: score\.weight$",
    ),
    "wrong shape": (
        with_tensors(lambda tensors: tensors.update({UP: torch.ones(96, 63)})),
        ValueError,
        rf"{UP} has shape \(96, 63\), expected \(96, 64\)$",
    ),
    "wrong dtype": (
        with_tensors(lambda tensors: tensors.update({UP: torch.ones(96, 64).to(torch.float8_e4m3fn)})),
        ValueError,
        rf"{UP} has the unsupported dtype torch\.float8_e4m3fn$",
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
        r"of-00006\.safetensors lacks model\.x\.weight, which model\.safetensors\.index\.json lists",
    ),
    "index without a map": (
        sharded(lambda index, folder: index.pop("weight_map")),
        ValueError,
        r"index\.json contains no weight_map",
    ),
    "index of files elsewhere": (
        sharded(lambda index, folder: index["weight_map"].update({UP: "../../secret.safetensors"})),
        ValueError,
        r"index\.json: .*'\.\./\.\./secret\.safetensors'",
    ),
    "pickled code": (
        pickled(lambda tensors: {**tensors, UP: Evil()}),
        ValueError,
        r"pytorch_model\.bin contains more than tensors.*_Fail",
    ),
    "pickled list": (pickled(lambda tensors: [*tensors.values()]), ValueError, r"\.bin must contain .* list"),
    "pickled number": (pickled(lambda tensors: {**tensors, "step": 3}), ValueError, r"not tensors: step"),
    "pickled number for a name": (
        pickled(lambda tensors: {**tensors, 7: tensors[UP]}),
        ValueError,
        "not tensors: 7",
    ),
    "pickled without zeros": (
        pickled(lambda tensors: {**tensors, UP: tensors[UP].to_sparse()}),
        ValueError,
        f"not tensors: {UP}",
    ),
    "pickled once for all rows": (
        pickled(lambda tensors: {**tensors, UP: torch.ones(1).expand(96, 64)}),
        ValueError,
        f"not tensors: {UP}",
    ),
    "pickled without values": (
        pickled(lambda tensors: {**tensors, UP: tensors[UP].to("meta")}),
        ValueError,
        f"not tensors: {UP}",
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
            assert unsound or model(IDS).logits.isfinite().all(), values


REFUSED = {
    "unknown": ({"colour": "red"}, TypeError, "'colour'.*LlamaConfig"),
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


@pytest.mark.parametrize(
    "name, stray",
    [
        ("norm.weight", "norm.weight"),
        ("model.lm_head.weight", r"model\.lm_head\.weight"),
        ("layers.1.input_layernorm.weight", r"layers\.1\.input_layernorm\.weight"),
    ],
)
def test_a_tensor_under_the_name_of_another_class_replaces_nothing(llama, name, stray):
    """`norm.weight` beside `model.norm.weight`: a model without a head is saved without the prefix."""
    shape = (400, 64) if "head" in name else (64,)
    change_tensors(llama, lambda tensors: tensors.update({name: torch.full(shape, 7.0)}))
    with pytest.raises(ValueError, match=f"unused tensors: {stray}$"):
        LlamaForCausalLM.from_pretrained(llama)
    if not name.startswith("model."):  # it may belong to the head of another class
        model = LlamaModel.from_pretrained(llama)
        assert not any(bool((value == 7).all()) for value in model.parameters())


def test_a_head_inside_the_model_is_no_head(llama):
    def move(tensors):
        tensors["model.lm_head.weight"] = tensors.pop("lm_head.weight")

    change_tensors(llama, move)
    with pytest.raises(ValueError, match=r"unused tensors: model\.lm_head\.weight.*missing.*lm_head\.weight"):
        LlamaForCausalLM.from_pretrained(llama)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "one of them is missing"])
def test_one_file_beside_shards(llama, caplog, whole):
    """Either may be old. The one file is loaded, as in transformers, and the log names both."""
    reference(CASES["llama"]).save_pretrained(llama, max_shard_size="100KB")
    change_tensors(llama, lambda tensors: tensors["model.norm.weight"].zero_())
    if not whole:  # then nothing else would load
        (llama / SHARD).unlink()
    model = AutoModelForCausalLM.from_pretrained(llama)
    assert not model.model.norm.weight.any()
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == whole
    if whole:
        assert f"{llama / 'model.safetensors'} is loaded" in warnings[0]
        assert "model.safetensors.index.json lists other files" in warnings[0]
