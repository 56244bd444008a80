"""Checkpoints packed while they are loaded: by bitsandbytes as transformers does it, and into GGUF blocks."""

import copy
import pickle

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.tiny import CASES, Case, reference
from torchgguf import AutoModelForCausalLM, BitsAndBytesConfig, GGUFQuantizationConfig, open_gguf
from torchgguf.models import AutoModelForSequenceClassification
from torchgguf.nn import QuantizedConv1D, QuantizedEmbedding, QuantizedLinear
from torchgguf.packing import Quantization

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install 'torchgguf[bnb]'")

NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "float16",
    "bnb_4bit_use_double_quant": True,
}
FOUR_BIT = [NF4, {"load_in_4bit": True}, {**NF4, "bnb_4bit_use_double_quant": False}]
KINDS = ("gpt2", "llama", "llama-tied", "qwen2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints by the name of their case."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in KINDS:
        case = CASES[name]
        # The library's CPU kernels take rows of whole blocks of 64 only.
        sizes = {} if case.kind == "GPT2" else {"intermediate_size": 128}
        reference(Case(case.kind, {**case.config, **sizes})).save_pretrained(folder / name)
    return folder


def ids() -> torch.Tensor:
    return torch.randint(0, 400, (2, 12), generator=torch.Generator().manual_seed(0))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """Products are the library's on either side; norms and attention are ours, which codes feel."""
    assert (actual - expected).float().norm() <= share * expected.float().norm()


def load_both(folder, options, dtype):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=transformers.BitsAndBytesConfig(**options), dtype=dtype, device_map="cpu"
    )
    ours = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**options), dtype=dtype, device_map="cpu"
    )
    return theirs.eval(), ours


@pytest.mark.parametrize("options", FOUR_BIT, ids=["nf4-double", "fp4", "nf4"])
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_four_bits_are_those_of_transformers(folders, name, options):
    theirs, ours = load_both(folders / name, options, torch.float32)
    packed = {path: m for path, m in theirs.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert packed
    for path, layer in ours.named_modules():
        assert isinstance(layer, bitsandbytes.nn.Linear4bit) == (path in packed), path
        if path in packed:
            assert torch.equal(layer.weight, packed[path].weight), path
    assert_near(ours(ids()).logits, theirs(ids()).logits, 0.01)
    new = ours.generate(ids()[:1], max_new_tokens=4, do_sample=False)
    assert new.shape == (1, 16)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@torch.no_grad()
def test_eight_bits_are_those_of_transformers(folders, name):
    theirs, ours = load_both(folders / name, {"load_in_8bit": True}, torch.float32)
    packed = {path: m for path, m in theirs.named_modules() if isinstance(m, bitsandbytes.nn.Linear8bitLt)}
    assert packed
    for path, layer in packed.items():
        assert torch.equal(ours.get_submodule(path).weight, layer.weight), path
    assert_near(ours(ids()).logits, theirs(ids()).logits, 0.02)


def test_activations_learn_through_four_bits(folders):
    """As adapters on packed weights need it: the packed weights themselves take no gradient."""
    model = AutoModelForCausalLM.from_pretrained(
        folders / "gpt2", quantization_config=BitsAndBytesConfig(**NF4), dtype=torch.float32
    ).train()
    model(ids(), labels=ids()).loss.backward()
    assert model.transformer.wte.weight.grad.abs().sum() > 0
    assert model.transformer.h[0].attn.c_attn.weight.grad is None


def test_modules_to_leave_as_they_are(folders):
    config = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["down_proj"])
    model = AutoModelForCausalLM.from_pretrained(folders / "llama", quantization_config=config)
    layer = model.model.layers[0].mlp
    assert type(layer.down_proj).__name__ == "Linear"
    assert isinstance(layer.up_proj, bitsandbytes.nn.Linear4bit)
    assert type(model.lm_head).__name__ == "Linear"


@torch.no_grad()
def test_rows_that_the_library_cannot_compute_with_on_a_cpu_stay_as_they_are(tmp_path, caplog):
    theirs = reference(CASES["llama"])  # whose down projections have rows of 96
    theirs.save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config)
    layer, original = model.model.layers[0].mlp, theirs.model.layers[0].mlp
    assert isinstance(layer.up_proj, bitsandbytes.nn.Linear4bit)
    assert torch.equal(layer.down_proj.weight, original.down_proj.weight)
    assert "model.layers.0.mlp.down_proj stays unpacked" in caplog.text
    assert model(ids()).logits.isfinite().all()


def test_what_cannot_be_saved_is_not(folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(
        folders / "llama", quantization_config=BitsAndBytesConfig(load_in_4bit=True)
    )
    with pytest.raises(ValueError, match="bitsandbytes"):
        model.save_pretrained(tmp_path / "out")
    with pytest.raises(ValueError, match="bitsandbytes"):
        model.save_gguf(tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


STORAGES = ["uint8", "float16", "bfloat16", "float32"]


def load_stored_as(folder, storage):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=storage)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)


@pytest.mark.parametrize("method", ["save_pretrained", "save_gguf"])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("storage", STORAGES)
def test_four_bits_stored_as_floats_are_not_saved(folders, storage, name, method, tmp_path):
    """Not after a forward: on some CPUs the library then stores bytes again."""
    model = load_stored_as(folders / name, storage)
    assert str(model.model.layers[0].mlp.up_proj.weight.dtype) == f"torch.{storage}"
    place = tmp_path / "out"
    with pytest.raises(ValueError, match=r"model\.layers\.0\.\S+ is packed by bitsandbytes"):
        getattr(model, method)(place)
    assert not place.exists()


@pytest.mark.parametrize(
    "cast",
    [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: model.double(),
        lambda model: model.to(torch.float32),
        lambda model: model.to("cpu", torch.bfloat16),
        lambda model: torch.nn.Sequential(model).half()[0],
        lambda model: (model, [part.half() for part in model.children()])[0],
        lambda model: (model, [layer.half() for layer in model.modules() if not [*layer.children()]])[0],
    ],
    ids=["half", "bfloat16", "double", "float32", "to", "inside", "parts", "each layer"],
)
@pytest.mark.parametrize("storage", STORAGES)
@torch.no_grad()
def test_casts_leave_four_bits_alone(folders, storage, cast):
    expected = load_stored_as(folders / "qwen2", "uint8")(ids()).logits
    model = load_stored_as(folders / "qwen2", storage)
    layer = model.model.layers[0].self_attn.q_proj
    before, norm = layer.weight.detach().view(torch.uint8).clone(), model.model.norm.weight.dtype
    model = cast(model)
    assert str(layer.weight.dtype) == f"torch.{storage}"
    assert isinstance(layer.weight, bitsandbytes.nn.Params4bit)
    assert torch.equal(layer.weight.detach().view(torch.uint8), before)
    assert layer.bias.dtype is model.model.norm.weight.dtype is model.dtype
    assert norm is torch.float32
    assert_near(model(ids()).logits.float(), expected, 0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set one of load_in_4bit=True and load_in_8bit=True"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "set one of"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf5"}, "'nf4' or 'fp4', got 'nf5'"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "int8"}, "dtype='int8' is not supported"),
        ({"load_in_4bit": True, "bnb_4bit_quant_storage": "int3"}, "bnb_4bit_quant_storage must be one of"),
    ],
    ids=str,
)
def test_configs_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        BitsAndBytesConfig(**options)


def test_configs_are_plain_data():
    """They say what those of transformers say, and can be copied and sent to other processes."""
    config, theirs = BitsAndBytesConfig(**NF4), transformers.BitsAndBytesConfig(**NF4).to_dict()
    assert config.to_dict().items() <= theirs.items()
    for kind in (config, GGUFQuantizationConfig("Q4_0")):
        assert copy.deepcopy(kind) == pickle.loads(pickle.dumps(kind)) == kind


@pytest.mark.parametrize("config", [NF4, transformers.BitsAndBytesConfig(**NF4)], ids=["dict", "theirs"])
def test_configs_of_another_kind_are_refused(folders, config):
    with pytest.raises(TypeError, match="quantization_config= must be a class of torchgguf, got"):
        AutoModelForCausalLM.from_pretrained(folders / "llama", quantization_config=config)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_into_gguf_blocks(folders, name, kind, tmp_path):
    """The blocks are those that the gguf package makes, and what save_gguf makes of the plain model."""
    model = AutoModelForCausalLM.from_pretrained(
        folders / name, quantization_config=GGUFQuantizationConfig(kind)
    )
    packed = [m for m in model.modules() if isinstance(m, QuantizedLinear | QuantizedEmbedding)]
    assert packed and all(layer.quant_type.name == kind for layer in packed)
    plain = AutoModelForCausalLM.from_pretrained(folders / name)
    model.save_gguf(tmp_path / "packed.gguf")
    plain.save_gguf(tmp_path / "plain.gguf", quantization=Quantization(kind, pure=True))
    with open_gguf(tmp_path / "packed.gguf") as ours, open_gguf(tmp_path / "plain.gguf") as theirs:
        assert ours.tensors.keys() == theirs.tensors.keys()
        for tensor in ours.tensors:
            assert torch.equal(ours[tensor], theirs[tensor]), tensor
    if name == "gpt2":
        layer, original = model.transformer.h[0].mlp.c_fc, plain.transformer.h[0].mlp.c_fc.weight.t()
        assert isinstance(layer, QuantizedConv1D)
        assert isinstance(model.transformer.wpe, torch.nn.Embedding)
    else:
        layer, original = model.model.layers[0].mlp.up_proj, plain.model.layers[0].mlp.up_proj.weight
    blocks = gguf.quants.quantize(original.contiguous().numpy(), gguf.GGMLQuantizationType[kind])
    assert torch.equal(layer.weight, torch.from_numpy(blocks))
    with open_gguf(tmp_path / "packed.gguf") as file:
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf")
        assert file.metadata["general.file_type"] == {"Q4_0": 2, "Q8_0": 7}[kind]
    assert_close(model(ids()).logits, again(ids()).logits, atol=1e-5, rtol=0)


def test_rows_that_do_not_divide_stay_as_they_are_and_are_named(folders, caplog):
    config = GGUFQuantizationConfig("Q4_K", modules_to_not_convert=["lm_head", "q_proj"])
    model = AutoModelForCausalLM.from_pretrained(folders / "llama", quantization_config=config)
    assert not any(isinstance(m, QuantizedLinear | QuantizedEmbedding) for m in model.modules())
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "model.layers.1.mlp.down_proj.weight stays unpacked: rows of 128 do not divide into Q4_K" in said
    assert "lm_head" not in said and "q_proj" not in said


def test_what_no_gguf_file_has_a_place_for_stays_as_it_is(folders):
    model = AutoModelForSequenceClassification.from_pretrained(
        folders / "llama", quantization_config=GGUFQuantizationConfig("Q4_0"), num_labels=3
    )
    assert type(model.score).__name__ == "Linear"
    assert isinstance(model.model.layers[0].mlp.up_proj, QuantizedLinear)


def test_unknown_types_are_refused():
    with pytest.raises(ValueError, match="unknown quantization type 'Q9_9'"):
        GGUFQuantizationConfig("Q9_9")
