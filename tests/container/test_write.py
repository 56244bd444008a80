"""Files we write, read by gguf-py and by llama.cpp."""

import resource
from itertools import product

import gguf
import numpy as np
import pytest
import torch

from tests.support import QWEN2, SMOLLM2
from torchgguf.container import (
    ArrayType,
    GGUFError,
    Metadata,
    TensorSource,
    TensorType,
    ValueType,
    open_gguf,
    write_gguf,
)

from .raw import F32, Q8_0, UINT32, Raw

PLAIN = [torch.float32, torch.float16, torch.float64, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize(
    "path", [SMOLLM2, pytest.param(QWEN2, marks=pytest.mark.slow)], ids=lambda path: path.stem
)
def test_a_file_written_back_is_the_same_file(tmp_path, path):
    with open_gguf(path) as file:
        write_gguf(tmp_path / "x.gguf", file.metadata, file.sources())
    assert np.array_equal(np.memmap(path, mode="r"), np.memmap(tmp_path / "x.gguf", mode="r"))


@pytest.mark.slow
def test_llama_cpp_says_the_same_from_the_file_we_wrote(tmp_path):
    import xllamacpp

    def says(path):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 64, 1, False, 0
        request = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
        return xllamacpp.Server(params).handle_completions(request)["choices"][0]["text"]

    with open_gguf(SMOLLM2) as file:
        metadata = file.metadata | {"note": "moved to other places in the file"}
        write_gguf(tmp_path / "x.gguf", metadata, reversed(file.sources().items()), alignment=128)
    text = says(tmp_path / "x.gguf")
    assert text.startswith(" Paris")
    assert text == says(SMOLLM2)


def test_gguf_py_reads_what_we_wrote(tmp_path):
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in PLAIN}
    packed = torch.arange(2 * 68, dtype=torch.uint8).reshape(2, 68)
    sources = {"packed": TensorSource((2, 64), TensorType.Q8_0, lambda: packed), "scalar": torch.tensor(2.5)}
    bf16 = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    metadata = {"a": 7, "b": "ü", "c": [1.5, 2.5], "d": ["x", "yz"], "e": True, "f": -1, "g": 2**40}
    write_gguf(tmp_path / "x.gguf", metadata, tensors | sources | {"bf16": bf16})

    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert {key: field.contents() for key, field in fields.items()} == metadata
    assert [field.types[-1].name for field in fields.values()] == [
        "UINT32",
        "STRING",
        "FLOAT32",
        "STRING",
        "BOOL",
        "INT32",
        "UINT64",
    ]
    read = {tensor.name: tensor for tensor in reader.tensors}
    assert list(read) == [*tensors, "packed", "scalar", "bf16"]
    for name, tensor in tensors.items():
        assert read[name].data.dtype == tensor.numpy().dtype
        assert np.array_equal(read[name].data, tensor.numpy())
    assert read["packed"].tensor_type == TensorType.Q8_0
    assert np.array_equal(read["packed"].data, packed.numpy())
    assert read["scalar"].data.tolist() == 2.5
    assert read["bf16"].tensor_type == TensorType.BF16
    assert read["bf16"].data.tobytes() == bytes.fromhex("803f00c0")


@pytest.mark.parametrize("alignment", [1, 2, 8, 64, 4096, 2**20])
def test_alignment(tmp_path, alignment):
    tensors = {"a": torch.ones(3, dtype=torch.int8), "b": torch.full((5,), 2.0), "c": torch.full((1,), 3.0)}
    write_gguf(tmp_path / "x.gguf", {}, tensors, alignment=alignment)
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.metadata == {"general.alignment": alignment}
        assert all(info.offset % alignment == 0 for info in file.tensors.values())
        assert all(torch.equal(file[name], tensor) for name, tensor in tensors.items())
        write_gguf(tmp_path / "y.gguf", file.metadata, file.sources())
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()
    assert (tmp_path / "x.gguf").stat().st_size % alignment == 0
    assert gguf.GGUFReader(tmp_path / "x.gguf").tensors[1].data.tolist() == [2.0] * 5


def test_another_alignment_than_the_metadata_says_is_written_into_them(tmp_path):
    metadata = Metadata({"general.alignment": 64, "z": 1})
    write_gguf(tmp_path / "x.gguf", metadata, {"a": torch.ones(1)}, alignment=32)
    assert metadata["general.alignment"] == 64
    with open_gguf(tmp_path / "x.gguf") as file:
        assert dict(file.metadata) == {"general.alignment": 32, "z": 1}


def test_version_2_of_the_other_byte_order_becomes_version_3_of_ours(tmp_path):
    raw = Raw(version=2, order=">", tensors=[("w", [2], F32, 0)])
    raw.pairs = [("n", UINT32, raw.number("I", 7))]
    raw.data = raw.number("2f", 1.5, -2)
    (tmp_path / "x.gguf").write_bytes(raw.build())
    with open_gguf(tmp_path / "x.gguf") as file:
        assert (file.version, file.byte_order) == (2, "big")
        write_gguf(tmp_path / "y.gguf", file.metadata, file.sources())
    little = Raw(tensors=raw.tensors, pairs=[("n", UINT32, (7).to_bytes(4, "little"))])
    little.data = little.number("2f", 1.5, -2) + bytes(24)
    assert (tmp_path / "y.gguf").read_bytes() == little.build()


def test_views_that_are_not_contiguous(tmp_path):
    tensor = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4)).t()
    write_gguf(tmp_path / "x.gguf", {}, {"w": tensor})
    assert torch.equal(open_gguf(tmp_path / "x.gguf")["w"], tensor)


def test_one_tensor_in_memory_at_a_time(tmp_path):
    alive = []

    def load():
        tensor = torch.zeros(1000)
        alive[:] = [reference for reference in alive if reference() is not None]
        assert not alive
        alive.append(__import__("weakref").ref(tensor))
        return tensor

    sources = {str(i): TensorSource((1000,), TensorType.F32, load) for i in range(4)}
    write_gguf(tmp_path / "x.gguf", {}, sources)
    assert len(open_gguf(tmp_path / "x.gguf")) == 4


def test_progress_reaches_the_files_size(tmp_path):
    seen = []
    write_gguf(
        tmp_path / "x.gguf",
        {},
        {"w": torch.zeros(10_000_000)},
        progress=lambda done, total: seen.append((done, total)),
    )
    size = (tmp_path / "x.gguf").stat().st_size
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x" * 64: torch.ones(1)}, "64 bytes, but ggml allows at most 63"),
        ({"w\ud800": torch.ones(1)}, r"tensor 'w\\ud800': .* is invalid in UTF-8"),
        ({"w": torch.ones(1, 1, 1, 1, 1)}, "tensor 'w': it has 5 dimensions"),
        ({"w": torch.ones(2, 0)}, r"tensor 'w': its shape \(2, 0\) has a size below 1"),
        ({"w": torch.ones(2, dtype=torch.uint8)}, "tensor 'w': torch.uint8 .* TensorSource"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "tensor 'w': torch.complex64"),
        ([("w", torch.ones(2)), ("w", torch.ones(2))], "duplicate tensor 'w'"),
        ({"w": TensorSource((40,), TensorType.Q8_0, lambda: torch.ones(1))}, "'w': its rows of 40"),
        ({"w": TensorSource((32,), TensorType.Q8_0, lambda: torch.ones(32))}, "'w': Q8_0 .* torch.uint8"),
        ({"w": TensorSource((2,), TensorType.F32, lambda: torch.ones(3))}, r"'w': F32 .* shape \(3,\)"),
    ],
)
def test_tensors_that_gguf_cannot_hold(tmp_path, tensors, message):
    with pytest.raises(GGUFError, match=message):
        write_gguf(tmp_path / "x.gguf", {}, tensors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metadata", "options", "message"),
    [
        ({}, {"alignment": 3}, "power of two"),
        ({}, {"alignment": 0}, "power of two"),
        ({}, {"alignment": 2**32}, "4294967296 does not fit uint32"),
        ({"general.alignment": 48}, {}, "power of two"),
        (Metadata({"general.alignment": 32}, {"general.alignment": ValueType.UINT64}), {}, "type uint32"),
        ({"": 1}, {}, "metadata key '': a key must have 1 to 65535 bytes, got 0"),
        ({"x" * 65536: 1}, {}, "got 65536"),
    ],
)
def test_metadata_that_gguf_cannot_hold(tmp_path, metadata, options, message):
    with pytest.raises(GGUFError, match=message):
        write_gguf(tmp_path / "x.gguf", metadata, {}, **options)
    assert not list(tmp_path.iterdir())


def test_as_many_entries_as_files_are_read_with(tmp_path):
    for count, kind in product((1 << 15, (1 << 15) + 1), ("tensors", "metadata keys")):
        contents = {str(i): torch.ones(1) if kind == "tensors" else i for i in range(count)}
        both = ({}, contents) if kind == "tensors" else (contents, {})
        if count == 1 << 15:
            write_gguf(tmp_path / "x.gguf", *both)
            open_gguf(tmp_path / "x.gguf").close()
        else:
            with pytest.raises(GGUFError, match=f"32769 {kind} exceed the limit of 32768"):
                write_gguf(tmp_path / "x.gguf", *both)


def test_a_list_spoilt_after_it_was_set_is_found_when_writing(tmp_path):
    metadata = Metadata({"list": ["a"]})
    metadata["list"].append(1)
    with pytest.raises(GGUFError, match="metadata key 'list': 1 is not a string"):
        write_gguf(tmp_path / "x.gguf", metadata, {})


def test_metadata_section_is_written_byte_for_byte(tmp_path):
    raw = Raw(tensors=[("w", [32], Q8_0, 0)], data=bytes(64))
    inner = [raw.strings(b"\xff\xfe", "a"), raw.array(int(ValueType.INT8), 0, b""), raw.array(9, 0, b"")]
    raw.pairs = [
        ("many", 9, raw.array(9, 3, b"".join(inner))),
        (b"key \xc3", 8, raw.strings(b"\xed\xa0\x80")[12:]),
        ("empty", 9, raw.array(int(ValueType.FLOAT64), 0, b"")),
        ("nan", int(ValueType.FLOAT32), raw.number("f", float("nan"))),
        ("inf", int(ValueType.FLOAT64), raw.number("d", float("-inf"))),
    ]
    (tmp_path / "x.gguf").write_bytes(raw.build())
    with open_gguf(tmp_path / "x.gguf") as file:
        assert str(file.metadata.types["many"]) == "[[string], [int8], [[]]]"
        assert file.metadata.types["empty"] == ArrayType(ValueType.FLOAT64)
        write_gguf(tmp_path / "y.gguf", file.metadata, file.sources())
    assert (tmp_path / "y.gguf").read_bytes() == raw.build()


def test_a_model_larger_than_the_memory_it_may_use_can_be_opened(tmp_path):
    """A sparse file of a terabyte: only the header may cost memory."""
    raw = Raw(tensors=[("w", [2**38], F32, 0)])
    with (tmp_path / "x.gguf").open("wb") as file:
        file.write(raw.build())
        file.truncate(len(raw.build()) + 2**40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_gguf(tmp_path / "x.gguf") as opened:
        assert opened["w"][-1] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
