"""Choose types for tensors, and pack whole files tensor by tensor. This layer knows no model."""

from torchgguf.packing.changes import pack_changes
from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix
from torchgguf.packing.packing import Quantization, pack_tensor, pack_tensors
from torchgguf.packing.planning import Choice, plan_types, stays_wide
from torchgguf.packing.recipes import RECIPES, Recipe, file_type_of, recipe
from torchgguf.packing.report import PackedTensor, PackingReport

__all__ = [
    "RECIPES",
    "Choice",
    "ImportanceMatrix",
    "PackedTensor",
    "PackingReport",
    "Quantization",
    "Recipe",
    "file_type_of",
    "load_imatrix",
    "pack_changes",
    "pack_tensor",
    "pack_tensors",
    "plan_types",
    "recipe",
    "stays_wide",
]
