"""GPT-2's GGUF files: packed ones, ones with parts missing or wrong, and what cannot be said in one."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import GGUFError, open_gguf
from torchgguf.nn import Conv1D, QuantizedConv1D, QuantizedEmbedding

PACKED = {"attn_qkv": "Q8_0", "attn_output": "Q5_0", "ffn_up": "Q4_1", "ffn_down": "Q4_0"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gpt2") / "plain.gguf"
    counterpart(reference(CASES["gpt2"])).save_gguf(path)
    return path


@pytest.fixture(scope="module")
def mixed(plain) -> Path:
    """The same model, each kind of matrix packed by gguf-py as another type; positions as halves."""
    tensors = {}
    with open_gguf(plain) as file:
        for name in file.tensors:
            kind = PACKED.get(name.split(".")[-2]) if name.endswith(".weight") else None
            kind = {"token_embd.weight": "Q8_0", "position_embd.weight": "F16"}.get(name, kind)
            if kind is not None:
                tensors[name] = packed(file[name].clone(), kind)
    return edited(plain, plain.with_name("mixed.gguf"), tensors=tensors)


def unpacked(path: Path) -> transformers.GPT2LMHeadModel:
    """The model of transformers with the weights of a file, as gguf-py unpacks them."""
    model = reference(CASES["gpt2"])
    tensors = {
        tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).float()
        for tensor in gguf.GGUFReader(path).tensors
    }
    for layer, block in enumerate(model.transformer.h):
        for name, module in (
            ("attn_qkv", block.attn.c_attn),
            ("attn_output", block.attn.c_proj),
            ("ffn_up", block.mlp.c_fc),
            ("ffn_down", block.mlp.c_proj),
        ):
            module.weight.data = tensors[f"blk.{layer}.{name}.weight"].T.contiguous()
    model.transformer.wte.weight.data.copy_(tensors["token_embd.weight"])
    model.transformer.wpe.weight.data.copy_(tensors["position_embd.weight"])
    return model


IDS = torch.randint(0, 400, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dequantize", [False, True], ids=["packed", "plain"])
@torch.no_grad()
def test_packed_weights(mixed, dequantize, exact_products):
    model = torchgguf.GPT2LMHeadModel.from_pretrained(mixed, dequantize=dequantize)
    layer = model.transformer.h[1].mlp.c_fc
    assert type(layer) is (Conv1D if dequantize else QuantizedConv1D)
    assert isinstance(model.transformer.wte, QuantizedEmbedding) is not dequantize
    assert_close(model(IDS).logits, unpacked(mixed)(IDS).logits, atol=1e-4, rtol=0)
    assert_close(model.dequantize()(IDS).logits, unpacked(mixed)(IDS).logits, atol=1e-4, rtol=0)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in unpacked(mixed).state_dict().items()
    }


def test_packed_weights_are_written_as_they_were(mixed, tmp_path):
    torchgguf.GPT2LMHeadModel.from_pretrained(mixed).save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == mixed.read_bytes()


def test_packed_weights_hand_gradients_on(mixed, exact_products):
    """Biases, norms and positions are trained through the packed weights, as through the plain ones."""
    model, theirs = torchgguf.GPT2LMHeadModel.from_pretrained(mixed), unpacked(mixed)
    model(IDS, labels=IDS).loss.backward()
    theirs(IDS, labels=IDS).loss.backward()
    expected = {path: parameter.grad for path, parameter in theirs.named_parameters()}
    trained = {
        path: parameter.grad for path, parameter in model.named_parameters() if parameter.requires_grad
    }
    assert {path for path in expected if path.endswith("bias") or ".ln_" in path} <= trained.keys()
    for path, gradient in trained.items():
        assert_close(gradient, expected[path], atol=1e-4, rtol=1e-3, msg=path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_activations_in_halves(mixed, dtype):
    model = torchgguf.GPT2LMHeadModel.from_pretrained(mixed, dtype=dtype)
    logits, expected = model(IDS).logits, unpacked(mixed)(IDS).logits
    assert logits.dtype is dtype
    assert (logits.float() - expected).abs().max() < 40 * torch.finfo(dtype).eps * expected.abs().max()


HEADS: dict[str, Callable] = {
    "GPT2DoubleHeadsModel": lambda output: output.mc_logits,
    "GPT2ForSequenceClassification": lambda output: output.logits,
    "GPT2ForTokenClassification": lambda output: output.logits,
    "GPT2ForQuestionAnswering": lambda output: output.start_logits,
}


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_new_heads_on_a_file(mixed, plain, name, caplog, tmp_path):
    """A file has no such heads: they are new, which is said, and cannot be written to one."""
    model = getattr(torchgguf, name).from_pretrained(plain)
    assert "they are new" in caplog.text
    head = [path for path, _ in model.named_parameters() if not path.startswith(("transformer.", "lm_head."))]
    assert head and all(path in caplog.text for path in head)
    assert HEADS[name](model(IDS[:1])).isfinite().all()
    base = torchgguf.GPT2Model.from_pretrained(plain)(IDS).last_hidden_state
    assert_close(model.base_model(IDS).last_hidden_state, base)
    with pytest.raises(ValueError, match=head[0]):
        model.save_gguf(tmp_path / "head.gguf")


def test_automatic_classes(plain):
    for auto, name in (
        ("AutoModel", "GPT2Model"),
        ("AutoModelForCausalLM", "GPT2LMHeadModel"),
        ("AutoModelForSequenceClassification", "GPT2ForSequenceClassification"),
        ("AutoModelForTokenClassification", "GPT2ForTokenClassification"),
        ("AutoModelForQuestionAnswering", "GPT2ForQuestionAnswering"),
    ):
        assert type(getattr(torchgguf, auto).from_pretrained(plain)) is getattr(torchgguf, name)
    assert type(torchgguf.AutoConfig.from_pretrained(plain)) is torchgguf.GPT2Config


def test_width_of_the_mlp(tmp_path):
    config = torchgguf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=12, n_inner=40)
    torchgguf.GPT2LMHeadModel(config).save_gguf(tmp_path / "narrow.gguf")
    assert gguf.GGUFReader(tmp_path / "narrow.gguf").fields["gpt2.feed_forward_length"].contents() == 40
    again = torchgguf.GPT2LMHeadModel.from_pretrained(tmp_path / "narrow.gguf")
    assert (again.config.n_inner, again.config.n_positions) == (40, 12)


UNWRITABLE = {
    "activation_function": "relu",
    "scale_attn_weights": False,
    "scale_attn_by_inverse_layer_idx": True,
}


@pytest.mark.parametrize(("field", "value"), UNWRITABLE.items())
def test_what_a_file_cannot_say(field, value, tmp_path):
    config = torchgguf.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, **{field: value})
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        torchgguf.GPT2LMHeadModel(config).save_gguf(tmp_path / "never.gguf")
    assert not (tmp_path / "never.gguf").exists()


BROKEN = {
    "no positions": ({}, {"position_embd.weight": None}, "missing tensors: position_embd.weight"),
    "fewer positions": ({"gpt2.context_length": 100}, {}, r"position_embd.weight has shape \(256, 64\)"),
    "more positions": ({"gpt2.context_length": 70000}, {}, "context_length = 70000 is invalid"),
    "no bias": ({}, {"blk.1.attn_qkv.bias": None}, "missing tensors: blk.1.attn_qkv.bias"),
    "untransposed": ({}, {"blk.0.ffn_up.weight": torch.zeros(64, 256)}, r"expected \(256, 64\)"),
    "other width": ({"gpt2.feed_forward_length": 200}, {}, r"blk.0.ffn_up.weight .* expected \(200, 64\)"),
    "no width": ({"gpt2.feed_forward_length": None}, {}, "feed_forward_length is missing"),
    "grouped heads": ({"gpt2.attention.head_count_kv": 2}, {}, "n_head is 2 by attention.head_count_kv"),
    "heads": ({"gpt2.attention.head_count": 5, "gpt2.attention.head_count_kv": 5}, {}, "n_head=5"),
    "unknown key": ({"gpt2.attention.sliding_window": 8}, {}, "unknown keys.*attention.sliding_window"),
    "unknown tensor": ({}, {"blk.0.attn_q.weight": torch.zeros(64, 64)}, "unused tensors: blk.0.attn_q"),
}


@pytest.mark.parametrize(("metadata", "tensors", "words"), BROKEN.values(), ids=BROKEN)
def test_files_that_fit_no_model(plain, tmp_path, metadata, tensors, words):
    path = edited(plain, tmp_path / "broken.gguf", metadata, tensors)
    with pytest.raises(GGUFError, match=words):
        torchgguf.AutoModelForCausalLM.from_pretrained(path)
