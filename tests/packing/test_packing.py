"""Tensors packed to other types: as llama-quantize does, loudly where that cannot be, in little memory."""

import math
import subprocess
import sys

import pytest
import torch

from tests.packing import files
from tests.packing.test_planning import GOLDEN
from torchgguf.container import Metadata, TensorSource, open_gguf, write_gguf
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization, pack_tensors, recipe
from torchgguf.packing.column_statistics import Activations
from torchgguf.quants import dequantize, quant_type, quant_types, quantize
from torchgguf.quants.capacity import capacity, exceeds

ONE = torch.ones(1, dtype=torch.int64)


def packed(tensors: dict[str, TensorSource], quantization: Quantization, report: PackingReport | None = None):
    return pack_tensors(Metadata(files.METADATA), tensors, quantization, report)


def of(weights: torch.Tensor, kind: str) -> TensorSource:
    blocks = quantize(weights, kind)
    return TensorSource(tuple(weights.shape), TENSOR_TYPES[quant_type(kind).id], lambda: blocks)


def wide(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", GOLDEN["files"])
def test_files_are_those_of_llama_quantize(name, tmp_path):
    """Metadata, types, and tensors byte for byte."""
    golden = GOLDEN["files"][name]
    recipe_name, _, has_imatrix = name.partition(" ")
    matrix = {"imatrix": files.imatrix(), "imatrix_file": "imatrix.gguf"} if has_imatrix else {}
    metadata = Metadata(files.METADATA)
    tensors = pack_tensors(metadata, files.sources(), Quantization(recipe_name, **matrix))
    write_gguf(tmp_path / "out.gguf", metadata, tensors)
    with open_gguf(tmp_path / "out.gguf") as file:
        types = file.metadata.types
        assert {key: [value, types[key].name] for key, value in file.metadata.items()} == golden["metadata"]
        found = {key: [info.type.name, files.digest(file[key])] for key, info in file.tensors.items()}
    assert found == golden["tensors"]


def test_what_has_its_type_is_copied():
    source = of(wide(4, 256), "Q4_K")
    report = PackingReport()
    result = packed({"blk.0.ffn_up.weight": source}, Quantization("Q4_K_S"), report)
    assert result["blk.0.ffn_up.weight"].load() is source.load()
    (row,) = report.tensors.values()
    assert (row.error, row.weighted_error, row.nbytes) == (0.0, None, 4 * 144)
    unreported = packed({"blk.0.ffn_up.weight": source}, Quantization("Q4_K_S"))
    assert unreported["blk.0.ffn_up.weight"].load() is source.load()


def test_slabs_make_the_whole(monkeypatch):
    """However many rows are packed at a time, of one matrix or of several."""
    monkeypatch.setattr("torchgguf.packing.packing._SLAB", 3 * 256)
    weights = {"blk.0.ffn_up.weight": wide(7, 256), "blk.0.ffn_up_exps.weight": wide(3, 7, 256).half()}
    known = {
        name: Activations(wide(experts, 256).square(), ONE.expand(experts))
        for name, experts in zip(weights, (1, 3), strict=True)
    }
    matrix = ImportanceMatrix(known, [], 1, 512)
    report = PackingReport()
    sources = {name: TensorSource.of(tensor) for name, tensor in weights.items()}
    tensors = packed(sources, Quantization("IQ4_XS", matrix), report)
    for name, tensor in weights.items():
        importance = known[name].means.unsqueeze(1)
        matrices = zip(tensor.view(-1, 7, 256), known[name].means, strict=True)
        blocks = torch.stack([quantize(matrix, "IQ4_XS", columns) for matrix, columns in matrices])
        assert torch.equal(tensors[name].load(), blocks.view(*tensor.shape[:-1], -1))
        difference = (dequantize(blocks, "IQ4_XS").double() - tensor).square()
        row, squares = report.tensors[name], tensor.double().square()
        assert row.error == pytest.approx(math.sqrt(difference.sum() / squares.sum()), rel=1e-6)
        expected = math.sqrt((difference * importance).sum() / (squares * importance).sum())
        assert row.weighted_error == pytest.approx(expected, rel=1e-6)


def test_each_expert_has_its_own_importances():
    weights, importance = wide(3, 5, 256), wide(3, 256).square()
    apart = [quantize(matrix, "Q2_K", columns) for matrix, columns in zip(weights, importance, strict=True)]
    assert torch.equal(quantize(weights, "Q2_K", importance), torch.stack(apart))
    alike = [quantize(matrix, "Q2_K", importance[0]) for matrix in weights]
    assert torch.equal(quantize(weights, "Q2_K", importance[0]), torch.stack(alike))
    with pytest.raises(
        ValueError, match=r"weights of 256 columns need that many importances, not \(2, 256\)"
    ):
        quantize(weights, "Q2_K", importance[:2])


def test_what_rows_force_is_logged_where_nothing_is_reported(caplog):
    shapes = {"blk.0.attn_q.weight": (8, 96), "blk.1.attn_q.weight": (8, 96), "blk.2.attn_q.weight": (8, 256)}
    sources = {name: TensorSource.of(wide(*shape)) for name, shape in shapes.items()}
    packed(sources, Quantization("Q4_K_M"), PackingReport())
    packed({"blk.2.attn_q.weight": sources["blk.2.attn_q.weight"]}, Quantization("Q4_K_M"))
    assert not caplog.records
    packed(sources, Quantization("Q4_K_M"))
    (record,) = caplog.records
    assert "Q5_0 for Q4_K in 2" in record.getMessage()


def test_report():
    report = PackingReport()
    sources = {"token_embd.weight": (8, 96), "blk.0.attn_v.weight": (4, 256), "output_norm.weight": (96,)}
    tensors = {name: TensorSource.of(wide(*shape)) for name, shape in sources.items()}
    for source in packed(tensors, Quantization("Q4_K_S"), report).values():
        source.load()
    assert [row.name for row in report.fallbacks] == ["token_embd.weight"]
    embedding = report.tensors["token_embd.weight"]
    assert (embedding.source_type.name, embedding.type.name, embedding.wanted.name) == ("F32", "Q8_0", "Q6_K")
    assert 0 < embedding.error < 0.01
    sizes = {"Q8_0": 8 * 3 * 34, "Q5_K": 4 * 176, "F32": 96 * 4}
    assert {kind.name: total.nbytes for kind, total in report.totals().items()} == sizes
    weights = 8 * 96 + 4 * 256 + 96
    assert (report.weights, report.nbytes) == (weights, sum(sizes.values()))
    assert report.bits_per_weight == sum(sizes.values()) * 8 / weights
    assert PackingReport().bits_per_weight == 0


@pytest.mark.parametrize("name", ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_M", "IQ3_XXS"])
def test_types_that_need_importances_say_so(name):
    """llama-quantize refuses them too, but for tables of tokens in types that ggml can pack without."""
    kind = recipe(name).type
    names = ("blk.0.attn_q.weight", "token_embd.weight", "output.weight")
    sources = {name: TensorSource.of(wide(2, 256)) for name in names}
    with pytest.raises(
        ValueError, match=rf"'blk.0.attn_q.weight' to {kind.name} requires .* no importance matrix"
    ):
        packed(sources, Quantization(name, pure=True))
    others = ImportanceMatrix({names[2]: Activations(torch.ones(1, 256), ONE)}, [], 1, 512)
    with pytest.raises(
        ValueError, match=r"'blk.0.attn_q.weight'.* does not contain this tensor. `torchgguf imatrix` creates"
    ):
        packed(sources, Quantization(name, others, pure=True))
    matrix = ImportanceMatrix({names[0]: Activations(torch.ones(1, 256), ONE)}, [], 1, 512)
    if kind.needs_importance:
        with pytest.raises(ValueError, match=f"'token_embd.weight' to {kind.name} requires importances"):
            packed(sources, Quantization(name, matrix, pure=True))
    else:
        assert packed(sources, Quantization(name, matrix, pure=True))[names[1]].load().shape[0] == 2


def test_only_one_recipe_needs_importances_for_q2_k():
    sources = {"blk.0.attn_q.weight": TensorSource.of(wide(2, 256))}
    with pytest.raises(ValueError, match="to Q2_K requires importances"):
        packed(sources, Quantization("Q2_K_S"))
    assert packed(sources, Quantization("Q2_K"))["blk.0.attn_q.weight"].type.name == "Q2_K"


def test_importances_of_another_model_are_refused():
    matrix = ImportanceMatrix({"blk.0.attn_q.weight": Activations(torch.ones(1, 128), ONE)}, [], 1, 512)
    with pytest.raises(ValueError, match=r"128 columns for blk.0.attn_q.weight"):
        packed({"blk.0.attn_q.weight": TensorSource.of(wide(2, 256))}, Quantization("Q8_0", matrix))
    with pytest.raises(ValueError, match="contains none of the tensors: does it belong to another model"):
        packed({"blk.0.attn_k.weight": TensorSource.of(wide(2, 256))}, Quantization("Q8_0", matrix))


def test_texts_whose_names_are_not_utf8():
    """As files of such a name are called in Python, and texts in matrices of the older format."""
    known = {"blk.0.attn_q.weight": Activations(torch.ones(1, 64), ONE)}
    matrix = ImportanceMatrix(known, ["caf\udce9.txt"], 1, 512)
    metadata = Metadata()
    source = TensorSource.of(wide(2, 64))
    pack_tensors(
        metadata, {"blk.0.attn_q.weight": source}, Quantization("Q8_0", matrix, imatrix_file="\udcff")
    )
    assert (metadata["quantize.imatrix.dataset"], metadata["quantize.imatrix.file"]) == ("caf.txt", "")


def test_what_is_packed_is_packed_again_on_demand_only():
    sources = {"blk.0.attn_q.weight": of(wide(2, 256), "Q8_0")}
    with pytest.raises(
        ValueError, match=r"'blk.0.attn_q.weight' is packed to Q8_0 already: .*allow_requantize"
    ):
        packed(sources, Quantization("Q4_0"))
    again = packed(sources, Quantization("Q4_0", allow_requantize=True))["blk.0.attn_q.weight"].load()
    assert torch.equal(again, quantize(dequantize(sources["blk.0.attn_q.weight"].load(), "Q8_0"), "Q4_0"))
    plain = packed(sources, Quantization("F32"))["blk.0.attn_q.weight"].load()  # which is no packing
    assert torch.equal(plain, dequantize(sources["blk.0.attn_q.weight"].load(), "Q8_0"))


@pytest.mark.parametrize("name", ["Q4_0", "Q6_K", "F16", "BF16"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(name, wrong):
    weights = wide(2, 256).double()
    weights[1, 200] = wrong
    source = packed({"blk.3.attn_q.weight": TensorSource.of(weights)}, Quantization(name))[
        "blk.3.attn_q.weight"
    ]
    with pytest.raises(ValueError, match=f"tensor 'blk.3.attn_q.weight': .*{name}"):
        source.load()


@pytest.mark.parametrize("name", ["Q8_0", "F32"])
def test_copied_weights_that_are_no_numbers_are_refused(name):
    """llama-quantize too will not have them, be they packed or not."""
    for tensor in ("blk.3.attn_norm.weight", "blk.3.ffn_gate_inp.weight", "blk.3.attn_q.weight"):
        source = TensorSource.of(torch.tensor([[1.0, math.nan] * 32] * 2))
        with pytest.raises(ValueError, match=f"tensor '{tensor}': .*"):
            packed({tensor: source}, Quantization(name))[tensor].load()


def test_weights_beyond_a_type_are_refused():
    source = TensorSource.of(torch.full((2, 64), 65520.0))
    with pytest.raises(ValueError, match=r"tensor 'blk.3.attn_q.weight': .* too large for F16"):
        packed({"blk.3.attn_q.weight": source}, Quantization("F16"))["blk.3.attn_q.weight"].load()
    assert (
        packed({"blk.3.attn_q.weight": source}, Quantization("BF16"))["blk.3.attn_q.weight"].load().min()
        == 65536
    )


@pytest.mark.parametrize("kind", [kind.name for kind in quant_types() if kind.dtype is None])
def test_weights_beyond_the_scales_of_a_type_are_refused(kind):
    """The scale of a block is a half at most, so larger weights would become the largest that it reaches."""
    lowest, highest = capacity(quant_type(kind))
    columns = torch.ones(256)
    for end in (lowest, highest):
        fitting, beyond = (torch.full((2, 256), share * end) for share in (0.9, 1.3))
        blocks = quantize(fitting, kind, columns)
        assert dequantize(blocks, kind).abs().max().item() == pytest.approx(0.9 * abs(end), rel=0.25)
        assert not exceeds(fitting, quant_type(kind))
        if not beyond.isfinite().all():
            continue
        assert exceeds(beyond, quant_type(kind))
        name = "blk.3.attn_q.weight"
        matrix = ImportanceMatrix({name: Activations(columns[None], ONE)}, [], 1, 512)
        packing = Quantization("Q4_0", matrix, overrides={"attn_q": kind})
        with pytest.raises(ValueError, match=f"tensor '{name}': .* too large for {kind}"):
            packed({name: TensorSource.of(beyond)}, packing)[name].load()


def test_tables_of_integers_are_copied():
    table = TensorSource.of(torch.arange(128, dtype=torch.int32).view(2, 64))
    copy = packed({"blk.0.table.weight": table}, Quantization("Q8_0"))["blk.0.table.weight"]
    assert copy.type is table.type and copy.load() is table.load()


def test_names_of_recipes():
    assert recipe("q4_k_m") is recipe("Q4_K") is recipe(recipe("Q4_K_M"))
    with pytest.raises(
        ValueError, match=r"unknown quantization 'Q4_K_XL'; known: F32, F16, .*Q4_K_M, .*NVFP4"
    ):
        Quantization("Q4_K_XL")


def test_overrides_in_pairs_or_as_a_mapping():
    sources = {f"blk.0.attn_{name}.weight": TensorSource.of(wide(2, 256)) for name in "qkv"}
    pairs = [("ATTN_[qk]", "F16"), ("attn", "Q6_K")]
    for overrides in (pairs, dict(pairs)):
        tensors = packed(sources, Quantization("Q8_0", overrides=overrides))
        assert [source.type.name for source in tensors.values()] == ["F16", "F16", "Q6_K"]


@pytest.mark.parametrize("overrides", [["ffn_down=Q6_K"], "ffn_down=Q6_K", ["kq"], [("a", "Q8_0", "b")]])
def test_overrides_that_are_no_pairs_are_refused(overrides):
    with pytest.raises(
        ValueError, match=r"must be patterns with types, such as \{'ffn_down': 'Q6_K'\} or .*, got "
    ):
        Quantization("Q8_0", overrides=overrides)


def test_overrides_that_do_nothing_are_refused():
    sources = {
        "blk.0.attn_q.weight": TensorSource.of(wide(2, 256)),
        "output_norm.weight": TensorSource.of(wide(8)),
    }
    with pytest.raises(ValueError, match="the pattern 'norm' matches no tensor that can be packed"):
        packed(sources, Quantization("Q8_0", overrides=[("norm", "F16")]))
    with pytest.raises(ValueError, match=r"the pattern '\(attn' is invalid"):
        packed(sources, Quantization("Q8_0", overrides=[("(attn", "F16")]))
    with pytest.raises(ValueError, match="unknown quantization type 'Q9'"):
        packed(sources, Quantization("Q8_0", overrides=[("attn", "Q9")]))


_PEAK = """
import resource, sys, torch
from torchgguf.container import Metadata, TensorSource, TensorType
from torchgguf.packing import PackingReport, Quantization, pack_tensors
def peak(rows):
    shape = (rows, 4096)
    source = TensorSource(shape, TensorType.F16, lambda: torch.full(shape, 0.5, dtype=torch.float16))
    pack_tensors(Metadata(), {"x.weight": source}, Quantization("Q8_0"), PackingReport())["x.weight"].load()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak(2048)
print(peak(14 * 1024) - before)
"""


def test_peak_memory_is_the_tensor_as_it_was_and_as_it_is():
    """Not in float32 as a whole, which would be 200 MB more."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    more = 12 * 1024 * 4096
    assert int(done.stdout) < more * 2 + more * 34 // 32 + (96 << 20)
