"""The types of tensors, those included that the installed gguf package does not list."""

import copy
import pickle

import pytest

from torchgguf.container import TensorType
from torchgguf.container.tensor_types import TENSOR_TYPES


@pytest.mark.parametrize("tensor_type", TENSOR_TYPES.values(), ids=lambda member: member.name)
def test_every_type_is_found_by_id_and_name_and_comes_back_from_copies(tensor_type):
    assert TensorType(int(tensor_type)) is tensor_type
    assert TensorType[tensor_type.name] is getattr(TensorType, tensor_type.name) is tensor_type
    assert pickle.loads(pickle.dumps(tensor_type)) is tensor_type
    assert copy.deepcopy(tensor_type) is tensor_type
