"""The GGUF file format: bytes, metadata, and positions of tensors. This layer knows no model."""

from torchgguf.container.editing.edits import Edited, edit_metadata
from torchgguf.container.editing.overwriting import undo_unfinished
from torchgguf.container.errors import GGUFError, GGUFTruncatedError, GGUFWarning
from torchgguf.container.metadata import Metadata
from torchgguf.container.reading.parser import GGUFHeader, parse_header
from torchgguf.container.reading.reader import GGUFFile, open_gguf
from torchgguf.container.tensor_types import TensorType
from torchgguf.container.tensors import LazyTensor, TensorInfo, TensorSource
from torchgguf.container.value_types import ArrayType, MetadataType, MetadataValue, ValueType, type_name
from torchgguf.container.writing.splitting import merge_gguf, plan_split, shard_paths, split_gguf, write_split
from torchgguf.container.writing.writer import write_gguf

__all__ = [
    "ArrayType",
    "Edited",
    "GGUFError",
    "GGUFFile",
    "GGUFHeader",
    "GGUFTruncatedError",
    "GGUFWarning",
    "LazyTensor",
    "Metadata",
    "MetadataType",
    "MetadataValue",
    "TensorInfo",
    "TensorSource",
    "TensorType",
    "ValueType",
    "edit_metadata",
    "merge_gguf",
    "open_gguf",
    "parse_header",
    "plan_split",
    "shard_paths",
    "split_gguf",
    "type_name",
    "undo_unfinished",
    "write_gguf",
    "write_split",
]
