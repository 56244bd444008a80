"""Whatever can be written comes back, and whatever bytes are read, nothing but a GGUFError comes of it."""

import random
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from torchgguf.container import (
    ArrayType,
    GGUFError,
    GGUFWarning,
    Metadata,
    TensorSource,
    ValueType,
    open_gguf,
    write_gguf,
)
from torchgguf.container.tensor_types import BLOCK_SIZES, PLAIN, storage_dtype

from .raw import ARRAY, BOOL, F32, Q8_0, STRING, UINT32, Raw, string

PER_FUNCTION = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

INTEGERS = {
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
}
VALUES = {
    **{value_type: st.integers(*limits) for value_type, limits in INTEGERS.items()},
    ValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    ValueType.FLOAT64: st.floats(allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.STRING: st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")),
}


@st.composite
def arrays(draw, depth=3):
    """An array's type and its value, as reading it back gives them."""
    if depth and draw(st.booleans()):
        inner = draw(st.lists(arrays(depth=depth - 1), max_size=3))
        return ArrayType.of([array_type for array_type, _ in inner]), [value for _, value in inner]
    element = draw(st.sampled_from(list(VALUES)))
    return ArrayType(element), draw(st.lists(VALUES[element], max_size=5))


scalars = st.sampled_from(list(VALUES)).flatmap(lambda t: st.tuples(st.just(t), VALUES[t]))
# Keys that the reader itself uses: most random values are invalid for them. Hypothesis tries these names,
# because it finds them in our sources.
RESERVED = ("general.alignment", "split.count")
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@PER_FUNCTION
@given(typed=st.dictionaries(keys.filter(lambda key: key not in RESERVED), scalars | arrays()))
def test_any_metadata_comes_back(tmp_path, typed):
    metadata = Metadata(
        {key: value for key, (_, value) in typed.items()},
        {key: value_type for key, (value_type, _) in typed.items()},
    )
    write_gguf(tmp_path / "x.gguf", metadata, {})
    with open_gguf(tmp_path / "x.gguf") as file:
        assert list(file.metadata.items()) == list(metadata.items())
        assert file.metadata.types == metadata.types


@PER_FUNCTION
@given(
    drawn=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x7F), max_size=63),
        st.tuples(st.sampled_from(list(BLOCK_SIZES)), st.lists(st.integers(1, 4), max_size=4)),
        max_size=6,
    ),
    alignment=st.sampled_from([1, 4, 32, 1024]),
    seed=st.integers(0, 2**32),
)
def test_any_tensors_come_back(tmp_path, drawn, alignment, seed):
    generator = np.random.default_rng(seed)
    sources = {}
    for name, (tensor_type, shape) in drawn.items():
        block_size, type_size = BLOCK_SIZES[tensor_type]
        shape = tuple(shape or ([] if block_size == 1 else [1]))
        bytes_per_row = (shape[-1] if shape else 1) * type_size
        rows = int(np.prod(shape[:-1]))
        data = torch.from_numpy(generator.integers(0, 256, rows * bytes_per_row, np.uint8))
        dtype = storage_dtype(tensor_type) if tensor_type in PLAIN else None
        stored = data.view(dtype).view(shape) if dtype else data.view(*shape[:-1], bytes_per_row)
        elements = (*shape[:-1], shape[-1] * block_size) if shape else ()
        sources[name] = TensorSource(elements, tensor_type, lambda stored=stored: stored)
    write_gguf(tmp_path / "x.gguf", {}, sources, alignment=alignment)
    with open_gguf(tmp_path / "x.gguf") as file:
        assert list(file) == list(sources)
        for name, source in sources.items():
            info, ours, theirs = file.tensors[name], file[name], source.load()
            assert (info.shape, info.type) == (source.shape, source.type)
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            assert torch.equal(ours.reshape(-1).view(torch.uint8), theirs.reshape(-1).view(torch.uint8))


def small_file(order):
    raw = Raw(tensors=[("a", [2, 2], F32, 0), ("b", [32, 1], Q8_0, 32)], order=order, data=bytes(96))
    raw.pairs = [
        ("general.alignment", UINT32, raw.number("I", 32)),
        ("text", STRING, string("some text", order)),
        ("flag", BOOL, b"\1"),
        ("words", ARRAY, raw.strings("a", "bc", "def")),
        ("numbers", ARRAY, raw.array(UINT32, 3, raw.number("3I", 1, 2, 3))),
        ("nested", ARRAY, raw.array(ARRAY, 2, raw.strings("x") + raw.array(BOOL, 2, b"\0\1"))),
    ]
    return raw.build()


def mutated(content, generator):
    content = bytearray(content)
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(content) + 1)
        match generator.randrange(5):
            case 0:
                content[at : at + 1] = generator.randbytes(1)
            case 1:
                content[at : at + 8] = generator.choice([b"\0", b"\xff", b"\x7f"]) * generator.choice(
                    [1, 4, 8]
                )
            case 2:
                del content[at : at + generator.randint(1, 16)]
            case 3:
                content[at:at] = generator.randbytes(generator.randint(1, 16))
            case 4:
                del content[max(at, 1) :]
    return bytes(content)


@pytest.mark.parametrize("order", "<>")
def test_mutations_of_a_file_are_read_or_refused(tmp_path, order):
    generator, path = random.Random(0), tmp_path / "x.gguf"
    original = small_file(order)
    path.write_bytes(original)
    assert len(open_gguf(path)) == 2
    read = refused = 0
    tracemalloc.start()
    for _ in range(1000):
        path.write_bytes(mutated(original, generator))
        started = time.monotonic()
        tracemalloc.reset_peak()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GGUFWarning)
                file = open_gguf(path)
            for name, info in file.tensors.items():
                assert file[name].nbytes == info.nbytes
            read += 1
        except GGUFError as error:
            assert str(path) in str(error)
            refused += 1
        assert time.monotonic() - started < 1
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    assert read > 25
    assert refused > 500
