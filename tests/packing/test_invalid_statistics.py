"""An importance matrix with numbers that are not squares: only the tensors that have them are left out."""

import re

import pytest
import torch

from torchgguf.container import GGUFError, GGUFWarning
from torchgguf.packing import ImportanceMatrix, load_imatrix
from torchgguf.packing.column_statistics import Activations


def activations(*sums):
    return Activations(torch.tensor([sums]), torch.tensor([2]))


@pytest.mark.parametrize("format", ["gguf", "dat"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_only_the_tensor_is_left_out(tmp_path, format, number):
    path = tmp_path / "imatrix"
    wrong = {"a": activations(1.0, number), "c": activations(number, 1.0)}
    ImportanceMatrix({**wrong, "b": activations(2.0, 4.0)}, ["text"], 3).save(path, format)
    words = f"^{re.escape(str(path))}: sums of a and 1 more tensors are negative, infinite or not a number"
    with pytest.warns(GGUFWarning, match=words) as caught:
        matrix = load_imatrix(path)
    assert len(caught) == 1
    assert list(matrix) == ["b"] and matrix.get("a") is None
    assert torch.allclose(matrix.get("b"), torch.tensor([1.0, 2.0]))
    assert (list(matrix.datasets), matrix.chunk_count) == (["text"], 3)
    ImportanceMatrix(wrong).save(path, format)
    with pytest.raises(GGUFError, match="sums of a and 1 more tensors"):
        load_imatrix(path)


def test_counts_that_are_no_counts(tmp_path):
    path = tmp_path / "imatrix"
    seven = Activations(torch.ones(1, 2), torch.tensor([7]))
    ImportanceMatrix({"a": seven, "b": activations(2.0, 4.0)}).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(torch.tensor(7.0).numpy().tobytes())
    data[place : place + 4] = torch.tensor(torch.nan).numpy().tobytes()
    path.write_bytes(data)
    with pytest.warns(GGUFWarning, match="sums of a are"):
        assert list(load_imatrix(path)) == ["b"]
