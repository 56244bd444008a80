"""Figures of a comparison are those that gguf-py and transformers come to, and what is wrong is found."""

import math

import gguf
import numpy as np
import pytest
import torch
import transformers

from tests.conversion.test_requantize import write_unknown
from tests.models.test_t5 import CASES as T5
from tests.models.tiny import Case, reference
from tests.peers.llama_cpp import convert
from tests.peers.vocabularies import add_tokenizer
from torchgguf import AutoModelForCausalLM, AutoTokenizer
from torchgguf.container import TensorSource, TensorType, open_gguf, write_gguf
from torchgguf.conversion import convert_to_gguf, verify_converted
from torchgguf.conversion.requantize import requantize
from torchgguf.conversion.verification import TEXT, LogitsComparison, verify, verify_requantized
from torchgguf.packing import Quantization


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny Llama by llama.cpp's converter, and what has been packed from it."""
    folder = tmp_path_factory.mktemp("verification")
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    files = convert({"tiny": reference(Case("Llama", sizes))}, folder, {})
    requantize(files["tiny"], folder / "packed.gguf", Quantization("Q3_K_M"))
    return files["tiny"], folder / "packed.gguf"


def answers(path, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)


def test_answers_are_compared_as_transformers_gives_them(files):
    source, packed = files
    tokens = AutoTokenizer.from_pretrained(packed)(TEXT)["input_ids"][:256]
    was, now = answers(source, tokens), answers(packed, tokens)
    verification = verify_requantized(packed, source)
    assert verification.problems == ()
    logits = verification.logits
    assert logits.tokens == 256
    assert logits.kl_divergence == pytest.approx((was.exp() * (was - now)).sum(-1).mean().item(), rel=1e-3)
    assert logits.kl_divergence > 1e-3
    same = (was.argmax(-1) == now.argmax(-1)).double().mean().item()
    assert logits.same_top == pytest.approx(same, abs=1.5 / 256)  # of two nearly alike
    for found, expected in ((logits.source_perplexity, was), (logits.perplexity, now)):
        of_next = expected[range(255), tokens[1:]].mean().item()
        assert math.log(found) == pytest.approx(-of_next, rel=1e-3)


def test_errors_are_those_that_gguf_py_finds(files):
    source, packed = files
    told = []
    verification = verify_requantized(packed, source, progress=lambda *counts: told.append(counts))
    old = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    new = {tensor.name: tensor for tensor in gguf.GGUFReader(packed).tensors}
    assert [tensor.name for tensor in verification.tensors] == list(new)
    errors = {}
    for tensor in verification.tensors:
        before, after = old[tensor.name], new[tensor.name]
        numbers = gguf.dequantize(before.data, before.tensor_type).astype(np.float64)
        difference = gguf.dequantize(after.data, after.tensor_type).astype(np.float64) - numbers
        errors[tensor.name] = np.sqrt((difference**2).mean() / (numbers**2).mean())
        assert tensor.error == pytest.approx(errors[tensor.name], rel=1e-4)
        assert tensor.copied is (before.tensor_type == after.tensor_type)
        assert (tensor.source_type, tensor.type) == (before.tensor_type, after.tensor_type)
    assert verification.worst.name == max(errors, key=errors.get)
    total = sum(tensor.n_bytes for tensor in new.values())
    assert told[-1] == (total, total)


def test_a_copy_is_without_error(files):
    source, _ = files
    verification = verify_requantized(source, source)
    assert verification.problems == ()
    assert verification.worst is None
    assert all(tensor.copied for tensor in verification.tensors)
    assert verification.logits.kl_divergence == 0
    assert verification.logits.same_top == 1


def sources():
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(8, 64),
        "b.weight": torch.full((8, 64), 1e-25),  # whose square is 0 in float32
        "c.weight": torch.randn(5),
    }


def packed(weights, kind="Q8_0"):
    blocks = torch.from_numpy(gguf.quantize(weights.numpy(), gguf.GGMLQuantizationType[kind]))
    return TensorSource(tuple(weights.shape), TensorType[kind], lambda: blocks)


def broken_scale(source):
    blocks = source.load().clone()
    blocks[2, :2] = torch.tensor([0x00, 0x7C])  # an infinite half
    return TensorSource(source.shape, source.type, lambda: blocks)


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda new: new.pop("b.weight"), "tensor 'b.weight' is missing"),
        (lambda new: new.update(d=torch.ones(2)), "tensor 'd' is not in the source"),
        (
            lambda new: new.update({"c.weight": torch.ones(6)}),
            "tensor 'c.weight' has shape (6,), its source (5,)",
        ),
        (
            lambda new: new["c.weight"].add_(1e-7),
            "tensor 'c.weight' is F32 like its source, but its bytes differ",
        ),
        (
            lambda new: new.update({"a.weight": broken_scale(new["a.weight"])}),
            "tensor 'a.weight' has weights that are not finite",
        ),
        (
            lambda new: new.update({"a.weight": packed(-2 * sources()["a.weight"])}),
            "tensor 'a.weight' has errors 3 times as large as its weights",
        ),
        (
            lambda new: new.update({"b.weight": packed(torch.ones(8, 64))}),
            "tensor 'b.weight' has errors 1e+25 times as large as its weights",
        ),
        (lambda new: None, None),
    ],
)
def test_what_is_wrong_is_found(tmp_path, change, problem):
    old, new = sources(), sources()
    new |= {name: packed(new[name]) for name in ("a.weight", "b.weight")}
    change(new)
    write_gguf(tmp_path / "x.gguf", {"general.architecture": "mystery"}, new)
    verification = verify(tmp_path / "x.gguf", {name: TensorSource.of(w) for name, w in old.items()})
    assert verification.problems == (() if problem is None else (problem,))
    assert verification.logits == "there is no model to compare with"


def test_why_answers_are_not_compared(files, tmp_path):
    unknown = write_unknown(tmp_path / "unknown.gguf")
    assert "architecture 'mystery' is not supported" in verify_requantized(unknown, unknown).logits
    source, packed_file = files
    with open_gguf(packed_file) as file:
        tensors = file.sources()
        metadata = file.metadata.copy()
        for key in [key for key in metadata if key.startswith("tokenizer.")]:
            del metadata[key]
        write_gguf(tmp_path / "mute.gguf", metadata, tensors)
        mute = verify(tmp_path / "mute.gguf", tensors, lambda: AutoModelForCausalLM.from_pretrained(source))
        assert isinstance(mute.logits, str)
        assert mute.problems == ()
        huge = {"huge": TensorSource((10**13,), TensorType.F32, lambda: None)}
        too_large = verify(packed_file, tensors | huge, lambda: AutoModelForCausalLM.from_pretrained(source))
        assert too_large.logits.startswith("the larger model needs 40,0")
        assert too_large.problems == ("tensor 'huge' is missing",)


def test_a_model_whose_answers_are_no_numbers(files, tmp_path):
    """Packed weights that are finite, but so large that the answers are not."""
    source, _ = files
    with open_gguf(source) as file:
        tensors = file.sources()
        loud = file["blk.0.ffn_norm.weight"] * 3e38
        broken = tensors | {"blk.0.ffn_norm.weight": TensorSource.of(loud)}
        write_gguf(tmp_path / "x.gguf", file.metadata, broken)
        verification = verify(
            tmp_path / "x.gguf", tensors, lambda: AutoModelForCausalLM.from_pretrained(source)
        )
    assert "the predictions of the model are not finite" in verification.problems
    assert not isinstance(verification.logits, LogitsComparison)


def test_a_folder_of_an_encoder(tmp_path):
    """Its tensors are compared; it has no predictions."""
    reference(T5["t5"], "AutoModelForTextEncoding").save_pretrained(tmp_path / "hf")
    add_tokenizer(tmp_path / "hf", "t5")
    convert_to_gguf(tmp_path / "hf", tmp_path / "x.gguf")
    found = verify_converted(tmp_path / "x.gguf", tmp_path / "hf")
    assert (found.problems, found.logits) == ((), "T5EncoderModel predicts no tokens")
