"""Importance matrices: llama.cpp's files read as llama-quantize reads them, and written byte for byte."""

import re
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.container.raw import F16, F32, STRING, UINT32, Raw, string
from tests.packing.imatrices import CHUNK_SIZE, CHUNKS, FIGURES, GOLDENS, MODELS, TEXT, means, read, read_dat
from torchgguf.container import GGUFError, GGUFWarning
from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix
from torchgguf.packing.imatrix_summary import summarize

IN_BOTH_FORMATS = ("llama", "qwen2moe")
EXPERTS = "blk.0.ffn_down_exps.weight"


@pytest.mark.parametrize("name", MODELS)
def test_means_are_those_of_llama_quantize(name):
    matrix = load_imatrix(GOLDENS / f"{name}.imatrix.gguf")
    expected = read(GOLDENS / f"{name}.imatrix.gguf")
    assert sorted(matrix) == sorted(expected)
    assert len(matrix) == len(expected)
    assert (matrix.datasets, matrix.chunk_count, matrix.chunk_size) == ([TEXT.name], CHUNKS, CHUNK_SIZE)
    for tensor, (sums, counts) in expected.items():
        wanted = means(sums, counts)
        found = matrix.get(tensor)
        assert found.dtype is torch.float32
        assert_close(found, torch.from_numpy(wanted if len(wanted) > 1 else wanted[0]), rtol=0, atol=0)
    assert matrix.get("blk.9.ffn_up.weight") is None


def test_experts_that_were_never_seen_get_ones():
    sums, counts = read(GOLDENS / "qwen2moe.two.gguf")[EXPERTS]
    assert 0 in counts
    found = load_imatrix(GOLDENS / "qwen2moe.two.gguf").get(EXPERTS, (len(counts), 5, sums.shape[1]))
    assert torch.equal(found, torch.from_numpy(means(sums, counts)))
    assert bool((found[counts == 0] == 1).all())


@pytest.mark.parametrize("part", ["imatrix", "two"])
@pytest.mark.parametrize("name", IN_BOTH_FORMATS)
def test_the_older_format_says_the_same(name, part):
    matrix = load_imatrix(GOLDENS / f"{name}.{part}.dat")
    assert (matrix.datasets, matrix.chunk_count) == ([TEXT.name], {"imatrix": CHUNKS, "two": 2}[part])
    expected = read_dat(GOLDENS / f"{name}.{part}.dat")
    newer = read(GOLDENS / f"{name}.{part}.gguf")
    assert sorted(matrix) == sorted(expected)
    for tensor, values in expected.items():
        sums, counts = newer[tensor]
        assert_close(matrix.get(tensor), torch.from_numpy(values), rtol=1e-6, atol=0)
        by_expert = matrix.get(tensor, (len(counts), 3, sums.shape[1]))
        wanted = torch.from_numpy(means(sums, counts))
        assert_close(by_expert.view_as(wanted), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_files_are_those_of_llama_imatrix(name, tmp_path):
    golden = GOLDENS / f"{name}.imatrix.gguf"
    load_imatrix(golden).save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == golden.read_bytes()


@pytest.mark.parametrize("part", ["imatrix", "two"])
@pytest.mark.parametrize("name", IN_BOTH_FORMATS)
def test_older_files_are_those_of_llama_imatrix(name, part, tmp_path):
    load_imatrix(GOLDENS / f"{name}.{part}.gguf").save(tmp_path / "x", "dat")
    assert (tmp_path / "x").read_bytes() == (GOLDENS / f"{name}.{part}.dat").read_bytes()


@pytest.mark.parametrize("name", IN_BOTH_FORMATS)
def test_older_files_become_what_llama_imatrix_makes_of_them(name, tmp_path):
    ImportanceMatrix.merged([load_imatrix(GOLDENS / f"{name}.imatrix.dat")]).save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (GOLDENS / f"{name}.from_dat.gguf").read_bytes()


@pytest.mark.parametrize("name", IN_BOTH_FORMATS)
def test_merged_as_by_llama_imatrix(name, tmp_path):
    parts = [load_imatrix(GOLDENS / f"{name}.{part}.gguf") for part in ("imatrix", "two")]
    ImportanceMatrix.merged(parts).save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (GOLDENS / f"{name}.merged.gguf").read_bytes()


@pytest.mark.parametrize("older_first", [True, False])
def test_merged_over_formats(older_first):
    """An older file counts as many tokens as its calls say, for all experts alike."""
    older = load_imatrix(GOLDENS / "qwen2moe.two.dat", CHUNK_SIZE)
    newer = load_imatrix(GOLDENS / "qwen2moe.imatrix.gguf")
    merged = ImportanceMatrix.merged([older, newer] if older_first else [newer, older])
    seen = read(GOLDENS / "qwen2moe.two.gguf")
    for tensor, (sums, counts) in read(GOLDENS / "qwen2moe.imatrix.gguf").items():
        calls = -(-seen[tensor][1].max() // CHUNK_SIZE)
        weight = calls * CHUNK_SIZE
        wanted = (sums + means(*seen[tensor]) * weight) / (counts + weight)[:, None]
        assert_close(
            merged.get(tensor, (len(counts), 1, sums.shape[1])).view(wanted.shape), torch.from_numpy(wanted)
        )


@pytest.mark.parametrize("name", IN_BOTH_FORMATS)
def test_figures_are_those_of_llama_imatrix(name):
    """The tool rounds them to the digits that it prints, and calculates in single precision."""
    found = {}
    for each in summarize(load_imatrix(GOLDENS / f"{name}.imatrix.gguf")):
        layer = each.name.split(".")[1] if each.name.startswith("blk") else "-"
        found[layer, each.name.split(".")[-2]] = each
    table = FIGURES["models"][name]["statistics"]
    assert len(table) == len(found)
    for layer, tensor, *columns in table:
        each = found[layer, tensor]
        ours = (
            *(each.total, each.least, each.most, each.mean, each.deviation, 100 * each.active, each.elements),
            *(each.entropy, 100 * each.evenness, 100 * each.outliers, each.similarity),
        )
        for ours_is, theirs in zip(ours, columns, strict=True):
            digits = len(theirs.rstrip("%").partition(".")[2])
            assert ours_is == pytest.approx(float(theirs.rstrip("%")), abs=1.01 * 10**-digits), tensor


def test_a_matrix_of_another_model():
    matrix = load_imatrix(GOLDENS / "llama.imatrix.gguf")
    other = load_imatrix(GOLDENS / "qwen2moe.imatrix.gguf")
    with pytest.raises(
        ValueError, match=r"48 columns for blk.0.ffn_down.weight, .* \(7, 64\): .* another model"
    ):
        matrix.get("blk.0.ffn_down.weight", (7, 64))
    with pytest.raises(ValueError, match="12 experts of 16 columns"):
        other.get(EXPERTS, (6, 7, 32))
    changed = ImportanceMatrix({EXPERTS: matrix.activations["blk.0.ffn_down.weight"]})
    with pytest.raises(
        ValueError, match=f"differ in {EXPERTS}: 12 experts of 16 columns in one, 48 columns in the other"
    ):
        ImportanceMatrix.merged([other, changed])
    with pytest.raises(ValueError, match="no importance matrices"):
        ImportanceMatrix.merged([])


# Broken files, in the older format.


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def entry(
    name: bytes = b"blk.0.ffn_up.weight", calls: int = 2, count: int = 3, values: bytes | None = None
) -> bytes:
    values = struct.pack(f"<{count}f", *range(count)) if values is None else values
    return struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, count) + values


def older(
    *entries: bytes, count: int | None = None, end: bytes = struct.pack("<ii4s", 7, 4, b"text")
) -> bytes:
    return struct.pack("<i", len(entries) if count is None else count) + b"".join(entries) + end


def written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "x").write_bytes(data)
    return tmp_path / "x"


def test_all_ends_of_the_older_format(tmp_path):
    """Old files end after the entries, or after the number of chunks."""
    matrices = [load_imatrix(written(tmp_path, older(entry(), end=end))) for end in (b"", b"\7\0\0\0")]
    matrices.append(load_imatrix(written(tmp_path, older(entry()))))
    found = [(list(matrix.datasets), matrix.chunk_count) for matrix in matrices]
    assert found == [([], 0), ([], 7), (["text"], 7)]
    assert torch.equal(matrices[0].get("blk.0.ffn_up.weight"), torch.tensor([0, 0.5, 1]))


def test_means_of_no_calls_are_taken_as_they_are(tmp_path):
    matrix = load_imatrix(written(tmp_path, older(entry(calls=0))))
    assert torch.equal(matrix.get("blk.0.ffn_up.weight"), torch.tensor([0.0, 1, 2]))


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "is empty"),
        (b"\1\0", "ends too early: the number of entries"),
        (b"This is a text about something.\n", "is not an importance matrix, neither as GGUF nor in"),
        (b"<!DOCTYPE html><html>", "it looks like an HTML page"),
        (older(count=0), "is not an importance matrix"),
        (older(count=-1), "is not an importance matrix"),
        (older(count=2**31 - 1), "is not an importance matrix"),
        (older(entry(), count=2, end=b""), "the name of entry 1"),
        (older(entry(), count=30_000, end=b""), "the name of entry 1"),
        (older(b"\xff\xff\xff\xff"), "is not an importance matrix"),
        (older(entry(), b"\xff\xff\xff\x7f"), "the name of entry 1 must have 0 to 63 bytes, got 2147483647"),
        (older(entry(), b"\xff\xff\xff\xff"), "the name of entry 1 must have 0 to 63 bytes, got -1"),
        (older(entry(b"")), "entry 0 has no name"),
        (older(entry(), entry()), "duplicate entry 'blk.0.ffn_up.weight'"),
        (older(entry(calls=-1)), "3 values of -1 calls"),
        (older(entry(count=0, values=b"")), "0 values of 2 calls"),
        (older(entry(count=-5, values=b"")), "-5 values of 2 calls"),
        (
            older(entry(count=2**31 - 1, values=bytes(64))),
            "entry 'blk.0.ffn_up.weight' of 2147483647 values needs",
        ),
        (older(entry(values=floats(1, np.nan, 1))), "sums of blk.0.ffn_up.weight are negative"),
        (older(entry(values=floats(1, np.inf, 1))), "sums of blk.0.ffn_up.weight are negative"),
        (older(entry(values=floats(1, -1, 1))), "sums of blk.0.ffn_up.weight are negative"),
        (older(entry(), end=struct.pack("<i", -1)), "the number of chunks must not be negative, got -1"),
        (
            older(entry(), end=struct.pack("<ii", 1, 2**31 - 1)),
            "the dataset must have 0 to 65536 bytes, got 2147483647",
        ),
        (older(entry(), end=struct.pack("<ii4sB", 1, 4, b"text", 0)), "there is data after its end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_files_in_the_older_format(data, reason, tmp_path):
    path = written(tmp_path, data)
    with pytest.raises(GGUFError, match=f"^{re.escape(str(path))}: .*{reason}.*$"):
        load_imatrix(path)


def test_any_part_of_an_older_file(tmp_path):
    """Cut anywhere it is refused, but where older files ended."""
    whole = (GOLDENS / "llama.two.dat").read_bytes()
    name = len(TEXT.name)
    assert whole.endswith(struct.pack(f"<ii{name}s", 2, name, TEXT.name.encode()))
    fine = [len(whole), len(whole) - name - 4, len(whole) - name - 8]
    for size in sorted({*range(0, len(whole), 9), *range(len(whole) - name - 10, len(whole)), *fine}):
        path = written(tmp_path, whole[:size])
        if size in fine:
            load_imatrix(path)
        else:
            with pytest.raises(GGUFError):
                load_imatrix(path)


def test_no_memory_is_taken_for_what_is_not_there(tmp_path):
    path = written(tmp_path, older(entry(), entry(b"b", count=2**29, values=bytes(64))))
    tracemalloc.start()
    with pytest.raises(GGUFError, match="ends too early"):
        load_imatrix(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


# Broken files in GGUF.

PAIRS = {
    "general.type": (STRING, string("imatrix")),
    "imatrix.datasets": (9, Raw().strings("a.txt", "b.txt")),
    "imatrix.chunk_count": (UINT32, struct.pack("<I", 3)),
    "imatrix.chunk_size": (UINT32, struct.pack("<I", 64)),
}
SUMS, COUNTS = ("a.weight.in_sum2", [3, 2], F32, 0), ("a.weight.counts", [1, 2], F32, 32)


def data_of(*numbers: float) -> bytes:
    """Six sums and two counts."""
    return floats(*numbers[:6]) + bytes(8) + floats(*numbers[6:])


DATA = data_of(*range(6), 2, 4)


def newer(*, tensors=(SUMS, COUNTS), data: bytes = DATA, **pairs: tuple[int, bytes] | None) -> bytes:
    values = PAIRS | {f"{key.replace('_', '.', 1)}": value for key, value in pairs.items()}
    listed = [(key, *value) for key, value in values.items() if value is not None]
    return Raw(listed, list(tensors), data + bytes(-len(data) % 32)).build()


def test_a_file_made_by_hand(tmp_path):
    matrix = load_imatrix(written(tmp_path, newer()))
    assert (matrix.datasets, matrix.chunk_count, matrix.chunk_size) == (["a.txt", "b.txt"], 3, 64)
    assert torch.equal(matrix.get("a.weight"), torch.tensor([[0, 0.5, 1], [0.75, 1, 1.25]]))
    assert torch.equal(matrix.get("a.weight", (2, 9, 3)), matrix.get("a.weight"))


def test_one_count_for_several_matrices(tmp_path):
    """As older builds of llama-imatrix count for tensors of three dimensions that are no experts'."""
    data = struct.pack("<6f8xf", *range(6), 2)
    file = newer(tensors=(SUMS, ("a.weight.counts", [1], F32, 32)), data=data)
    matrix = load_imatrix(written(tmp_path, file))
    assert torch.equal(matrix.get("a.weight", (2, 9, 3)), torch.tensor([[0, 0.5, 1], [1.5, 2, 2.5]]))


def test_tensors_of_later_formats_are_left_out(tmp_path):
    file = newer(tensors=(SUMS, COUNTS, ("a.weight.in_sum", [1], F32, 64)), data=DATA + bytes(24) + bytes(4))
    with pytest.warns(GGUFWarning, match="ignored 1 unknown tensors such as a.weight.in_sum"):
        assert list(load_imatrix(written(tmp_path, file))) == ["a.weight"]


@pytest.mark.parametrize(
    "data, reason",
    [
        (
            newer(general_type=(STRING, string("model"))),
            "not an importance matrix: general.type must be 'imatrix', got 'model'",
        ),
        (newer(general_type=None), "not an importance matrix: general.type must be 'imatrix', got None"),
        (newer(imatrix_datasets=None), "imatrix.datasets is missing"),
        (newer(imatrix_chunk_count=None), "imatrix.chunk_count is missing"),
        (newer(imatrix_chunk_size=None), "imatrix.chunk_size is missing"),
        (newer(imatrix_chunk_size=(STRING, string("512"))), "imatrix.chunk_size has a wrong type"),
        (newer(imatrix_chunk_size=(UINT32, bytes(4))), "imatrix.chunk_size must be at least 1, got 0"),
        (newer(imatrix_datasets=(UINT32, bytes(4))), "imatrix.datasets has a wrong type"),
        (newer(tensors=(), data=b""), "contains no activations"),
        (
            newer(tensors=(SUMS,), data=DATA[:24]),
            "a.weight needs .in_sum2 and .counts, but has only .in_sum2",
        ),
        (
            newer(tensors=(("a.weight.counts", [1, 2], F32, 0),), data=DATA[:8]),
            "a.weight needs .in_sum2 and .counts, but has only .counts",
        ),
        (newer(tensors=(SUMS, ("a.weight.counts", [1, 2], F16, 32))), "a.weight.counts must be F32, got F16"),
        (
            newer(tensors=(SUMS, ("a.weight.counts", [1, 4], F32, 32))),
            "6 sums, which is not a multiple of its 4 counts",
        ),
        (newer(data=data_of(*range(6), 2, -1)), "sums of a.weight are negative"),
        (newer(data=data_of(*range(6), 2, np.nan)), "sums of a.weight are negative"),
        (newer(data=data_of(*range(6), 2, np.inf)), "sums of a.weight are negative"),
        (newer(data=data_of(*range(5), np.nan, 2, 2)), "sums of a.weight are negative"),
        (newer(data=data_of(*range(5), -1, 2, 2)), "sums of a.weight are negative"),
        (newer()[:-40], "is it incomplete?"),
        (newer()[:90], "ends too early"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_files_in_gguf(data, reason, tmp_path):
    path = written(tmp_path, data)
    with pytest.raises(GGUFError, match=f"^{re.escape(str(path))}: .*{re.escape(reason)}"):
        load_imatrix(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(GGUFError, match="is not a regular file"):
        load_imatrix(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_imatrix(tmp_path / "missing")


# Writing.


def test_no_half_file(tmp_path):
    """A limit on the size of files ends a write as a full disk does."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    script = """
import resource, sys
from torchgguf.packing.imatrix import load_imatrix
matrix = load_imatrix(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
for format in ("gguf", "dat"):
    try:
        matrix.save(sys.argv[2], format)
    except Exception as error:
        print(error)
"""
    golden = GOLDENS / "qwen2moe.imatrix.gguf"
    done = subprocess.run([sys.executable, "-c", script, golden, path], capture_output=True, text=True)
    assert done.stdout.count("File too large") == done.stdout.count(str(path)) == 2, done.stderr
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_what_cannot_be_written(tmp_path):
    (each,) = load_imatrix(written(tmp_path, newer())).activations.values()
    with pytest.raises(GGUFError, match="its name has 68 bytes"):
        ImportanceMatrix({60 * "a": each}).save(tmp_path / "y")
    with pytest.raises(ValueError, match="format must be gguf or dat, got 'json'"):
        ImportanceMatrix({"a": each}).save(tmp_path / "y", "json")
    with pytest.raises(ValueError, match="there is nothing to write"):
        ImportanceMatrix({}).save(tmp_path / "y")
    assert not (tmp_path / "y").exists()
