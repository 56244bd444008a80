"""Importance matrices from our own forward pass are those of llama-imatrix; and what they are good for."""

import math
from threading import Thread
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from tests.packing.imatrices import CHUNK_SIZE, CHUNKS, FIGURES, GOLDENS, MODELS, TEXT, read
from tests.support import SMOLLM2
from torchgguf import kernels
from torchgguf.conversion.importance import (
    ImportanceCollector,
    chunk_start_token,
    collect_importance,
    cut,
    encode_texts,
)
from torchgguf.models import AutoModel, AutoModelForCausalLM
from torchgguf.nn import PackedLayer
from torchgguf.nn.experts import ObservedExperts
from torchgguf.packing.imatrix import ImportanceMatrix
from torchgguf.quants import dequantize, quantize
from torchgguf.tokenization import AutoTokenizer

CONTENT = TEXT.read_text().removesuffix("\n")
# llama.cpp looks GELU up in a table of halves.
TOLERANCE = {"gpt2": 2e-3, "bloom": 2e-3}


def chunks_of(name: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(GOLDENS / f"{name}.gguf")
    return cut(encode_texts(tokenizer, [CONTENT]), CHUNK_SIZE, chunk_start_token(tokenizer))[:CHUNKS]


def load(name: str, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(GOLDENS / f"{name}.gguf", **options)


def collected(model: Any, chunks: torch.Tensor, batch_size: int = 1, **options: Any) -> ImportanceCollector:
    with ImportanceCollector(model, **options) as collector:
        for batch in chunks.split(batch_size):
            collector.read(batch)
    return collector


def assert_same(found: ImportanceMatrix, expected: ImportanceMatrix, tolerance: float) -> None:
    """Equal counts, and sums that differ by no more than a share of the tensor's largest."""
    assert sorted(found) == sorted(expected)
    for name, wanted in expected.activations.items():
        sums, counts = found.activations[name].sums, found.activations[name].counts
        assert torch.equal(counts, wanted.counts), name
        assert_close(sums, wanted.sums, rtol=tolerance, atol=tolerance * float(wanted.sums.max()), msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_sums_are_those_of_llama_imatrix(name):
    tolerance = TOLERANCE.get(name, 1e-5)
    matrix = collected(load(name), chunks_of(name), process_output=True).matrix([TEXT.name])
    assert (matrix.datasets, matrix.chunk_count, matrix.chunk_size) == ([TEXT.name], CHUNKS, CHUNK_SIZE)
    expected = read(GOLDENS / f"{name}.imatrix.gguf")
    assert sorted(matrix) == sorted(expected)
    for tensor, (sums, counts) in expected.items():
        found = matrix.activations[tensor]
        assert found.counts.tolist() == counts.tolist(), tensor
        wanted = torch.from_numpy(sums)
        assert_close(found.sums, wanted, rtol=tolerance, atol=tolerance * float(wanted.max()), msg=tensor)


@pytest.mark.parametrize("name", MODELS)
def test_perplexity_is_that_of_llama_imatrix(name):
    figures, found = FIGURES["models"][name], []
    tolerance = TOLERANCE.get(name, 1e-5)
    with ImportanceCollector(load(name)) as collector:
        assert math.isnan(collector.perplexity[0])
        for chunk in chunks_of(name).split(1):
            collector.read(chunk)
            found.append(collector.perplexity[0])
    assert found == pytest.approx(figures["perplexities"], rel=tolerance)
    assert collector.perplexity == pytest.approx(figures["estimate"], rel=tolerance)


@pytest.mark.parametrize("name", ["llama", "qwen2moe"])
def test_all_at_once(name):
    """Chunks side by side, without perplexity, and the head only if it is asked for."""
    tokenizer = AutoTokenizer.from_pretrained(GOLDENS / f"{name}.gguf")
    told: list[tuple[int, int]] = []
    matrix = collect_importance(
        load(name),
        encode_texts(tokenizer, [CONTENT]),
        chunk_size=CHUNK_SIZE,
        bos_token_id=chunk_start_token(tokenizer),
        max_chunks=CHUNKS,
        batch_size=2,
        datasets=[TEXT.name],
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, CHUNKS), (4, CHUNKS), (5, CHUNKS)]
    expected = read(GOLDENS / f"{name}.imatrix.gguf")
    assert sorted({*matrix, "output.weight"}) == sorted(expected)
    assert len(matrix) == len(expected) - 1
    for tensor in matrix:
        assert_close(
            matrix.activations[tensor].sums, torch.from_numpy(expected[tensor][0]), rtol=1e-4, atol=1e-4
        )


def test_a_model_without_a_head():
    model = AutoModel.from_pretrained(GOLDENS / "llama.gguf")
    found = collected(model, chunks_of("llama"), perplexity=False).matrix()
    with_head = collected(load("llama"), chunks_of("llama")).matrix()
    assert_same(found, with_head, 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_packed_as_unpacked(name, tmp_path):
    """A packed model collects what the plain one of the same weights does."""
    load(name).save_gguf(tmp_path / "packed.gguf", quantization="Q8_0")
    with kernels.multiplying_in(torch.float32):
        models = [
            AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf", dequantize=dequantize)
            for dequantize in (False, True)
        ]
        assert any(isinstance(layer, PackedLayer) for layer in models[0].modules())
        packed, plain = (collected(model, chunks_of(name), process_output=True).matrix() for model in models)
    assert_same(packed, plain, 1e-4)


def test_halves_calculate_nearly_the_same():
    plain, halves = (
        collected(load("llama", dequantize=True, dtype=dtype), chunks_of("llama")).matrix()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert_same(halves, plain, 0.05)


def test_other_threads_and_later_passes_are_not_counted():
    model, chunks = load("qwen2moe"), chunks_of("qwen2moe")
    expected = collected(model, chunks).matrix()
    with ImportanceCollector(model) as collector:
        other = Thread(target=model, args=(chunks,))
        other.start()
        other.join()
        for chunk in chunks.split(1):
            collector.read(chunk)
    model(chunks)
    assert_same(collector.matrix(), expected, 1e-6)
    experts = [layer for layer in model.modules() if isinstance(layer, ObservedExperts)]
    assert experts
    assert all(layer.observer is None for layer in experts)
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize("packed", [False, True])
def test_matrices_in_one_layer_share_their_inputs(packed, tmp_path):
    """A layer that files contain as two matrices, of Granite's shared expert."""
    model = counterpart(reference(CASES["granitemoe-shared"]))
    if packed:
        model.save_gguf(tmp_path / "packed.gguf", quantization="Q8_0")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf")
    ids = torch.randint(0, 400, (1, 32), generator=torch.Generator().manual_seed(0))
    matrix = collected(model, ids).matrix()
    gate, up = (matrix.activations[f"blk.0.ffn_{part}_shexp.weight"] for part in ("gate", "up"))
    assert torch.equal(gate.sums, up.sums) and gate.counts.tolist() == up.counts.tolist() == [32]


def test_a_matrix_is_a_copy():
    """What is saved half way does not grow as the reading goes on."""
    chunks = chunks_of("qwen2moe")
    with ImportanceCollector(load("qwen2moe"), process_output=True) as collector:
        collector.read(chunks[:2])
        early = collector.matrix()
        collector.read(chunks[2:])
    for tensor, (sums, counts) in read(GOLDENS / "qwen2moe.two.gguf").items():
        assert early.activations[tensor].counts.tolist() == counts.tolist()
        assert_close(early.activations[tensor].sums, torch.from_numpy(sums), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name, tensor, where",
    [
        ("llama", "blk.1.ffn_down.weight", "model.layers.1.mlp.up_proj"),
        ("bloom", "blk.0.attn_qkv.weight", ""),
    ],
)
def test_activations_that_are_no_numbers(name, tensor, where):
    model = load(name, dequantize=True)
    layer = model.get_submodule(where) if where else model.get_input_embeddings()
    with torch.no_grad():
        layer.weight.fill_(math.inf)
    with pytest.raises(ValueError, match=rf"the activations for {tensor} are infinite or not a number"):
        collected(model, chunks_of(name))


def test_chunks_that_cannot_be():
    with pytest.raises(
        ValueError, match="a chunk has 32 tokens, but the text has only 31: use a longer text"
    ):
        cut(list(range(31)), 32, None)
    with pytest.raises(ValueError, match="chunks have 64 tokens, but the context of the model is 32"):
        collected(load("gpt2"), chunks_of("gpt2").view(-1)[:64][None])


@pytest.mark.parametrize("name", ["chunk_size", "max_chunks", "batch_size"])
def test_sizes_that_cannot_be(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got -1"):
        collect_importance(load("llama"), [5] * 64, **{name: -1})


def test_a_model_that_is_being_trained():
    """Dropout would be taken for activations."""
    with pytest.raises(ValueError, match=r"training mode: call model.eval\(\)"):
        ImportanceCollector(load("gpt2").train())


def test_chunks():
    assert cut(list(range(11)), 5, None).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert cut(list(range(11)), 5, 77).tolist() == [[77, 1, 2, 3, 4], [77, 6, 7, 8, 9]]


def test_special_tokens_are_text_unless_they_are_asked_for():
    tokenizer = AutoTokenizer.from_pretrained(GOLDENS / "llama.gguf")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    as_text, parsed = (encode_texts(tokenizer, ["a</s>b", "c"], special) for special in (False, True))
    assert 2 not in as_text
    assert as_text.count(1) == parsed.count(1) == 2
    assert parsed.count(2) == 1
    assert chunk_start_token(tokenizer) == 1
    assert chunk_start_token(AutoTokenizer.from_pretrained(GOLDENS / "gpt2.gguf")) is None


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2.exists(), reason="python scripts/fetch_models.py")
def test_what_it_is_good_for():
    """Packed by what matters, a model stays closer to itself on a text that was not read for it."""
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    model: Any = AutoModelForCausalLM.from_pretrained(SMOLLM2, dequantize=True)
    chunks = cut(encode_texts(tokenizer, [CONTENT]), 256, chunk_start_token(tokenizer))
    matrix = collected(model, chunks[:4], perplexity=False).matrix()
    held_out = chunks[-1:]
    layers = {f"blk.{i}.ffn_down.weight": layer.mlp.down_proj for i, layer in enumerate(model.model.layers)}
    weights = {name: layer.weight.detach() for name, layer in layers.items()}

    @torch.inference_mode()
    def scores() -> torch.Tensor:
        return model(held_out, use_cache=False).logits.log_softmax(-1)

    def packed(kind: str, importances: dict[str, torch.Tensor | None]) -> tuple[float, float, float]:
        """Weighted error, divergence from the scores of the model itself, and perplexity."""
        error = 0.0
        for name, weight in weights.items():
            rounded = dequantize(quantize(weight, kind, importances[name]), kind)
            error += float(((rounded - weight).square() * matrix.get(name)).sum())
            layers[name].weight = torch.nn.Parameter(rounded, requires_grad=False)
        log_p = scores()
        loss = -log_p[:, :-1].gather(-1, held_out[:, 1:, None]).mean()
        divergence = (itself.exp() * (itself - log_p)).sum(-1).mean()
        return error, float(divergence), float(loss.exp())

    itself = scores()
    by_matrix = {name: matrix.get(name, weight.shape) for name, weight in weights.items()}
    for kind, without in (("Q2_K", None), ("IQ2_XS", torch.ones(1536))):
        blind = packed(kind, dict.fromkeys(weights, without))
        seeing = packed(kind, by_matrix)
        for ours, theirs in zip(seeing, blind, strict=True):
            assert ours < 0.7 * theirs, (kind, seeing, blind)
