"""Merge adapters into files, and report what packing left of them."""

from torchgguf.training.merging.files import merge_into_gguf
from torchgguf.training.merging.report import MergedTensor, MergeReport

__all__ = ["MergeReport", "MergedTensor", "merge_into_gguf"]
