"""Real files, against what gguf-py reads from them."""

import gc

import gguf
import numpy as np
import pytest
import torch

from tests.support import QWEN2, SMOLLM2
from torchgguf.container import ArrayType, ValueType, open_gguf

MODELS = [SMOLLM2, pytest.param(QWEN2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_every_value_and_every_tensor_is_gguf_pys(path):
    reader = gguf.GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    with open_gguf(path) as file:
        assert list(file.metadata) == list(fields)
        for key, field in fields.items():
            outer, *inner = field.types
            assert file.metadata.types[key] == (ArrayType(*inner) if outer == ValueType.ARRAY else outer)
            assert file.metadata[key] == field.contents()
        assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
        for theirs in reader.tensors:
            info, ours = file.tensors[theirs.name], file[theirs.name]
            assert info.shape == tuple(reversed(theirs.shape.tolist()))
            assert (info.type, info.offset) == (theirs.tensor_type, theirs.data_offset)
            assert (info.nbytes, info.shard) == (theirs.n_bytes, 0)
            assert tuple(ours.shape) == info.storage_shape == theirs.data.shape
            assert ours.dtype == info.dtype == torch.from_numpy(theirs.data[:0].copy()).dtype
            assert np.array_equal(ours.numpy(), theirs.data)


def test_a_tensor_is_a_view_that_outlives_its_file():
    file = open_gguf(SMOLLM2)
    name, info = next(iter(file.tensors.items()))
    tensor, again = file[name], file[name]
    assert tensor.data_ptr() == again.data_ptr()
    with SMOLLM2.open("rb") as raw:
        raw.seek(info.offset)
        expected = raw.read(info.nbytes)
    file.close()
    del file, again
    gc.collect()
    assert tensor.numpy().tobytes() == expected


def test_writing_into_a_view_leaves_the_file_alone(recwarn):
    with open_gguf(SMOLLM2) as file:
        tensor = file["output_norm.weight"]
        before = tensor.clone()
        tensor += 1
        assert torch.equal(file["output_norm.weight"], before + 1)
    with open_gguf(SMOLLM2) as file:
        assert torch.equal(file["output_norm.weight"], before)
    assert not recwarn.list
