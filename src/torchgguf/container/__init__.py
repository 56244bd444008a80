"""The GGUF file: bytes, metadata, where tensors lie. Knows no model."""

from torchgguf.container.errors import GGUFError, GGUFTruncatedError, GGUFWarning
from torchgguf.container.metadata import Metadata
from torchgguf.container.parser import Header, parse_header
from torchgguf.container.reader import GGUFFile, open_gguf
from torchgguf.container.tensor_types import TensorType
from torchgguf.container.tensors import TensorInfo, TensorSource
from torchgguf.container.value_types import ArrayType, MetadataType, MetadataValue, ValueType, type_name
from torchgguf.container.writer import write_gguf

__all__ = [
    "ArrayType",
    "GGUFError",
    "GGUFFile",
    "GGUFTruncatedError",
    "GGUFWarning",
    "Header",
    "Metadata",
    "MetadataType",
    "MetadataValue",
    "TensorInfo",
    "TensorSource",
    "TensorType",
    "ValueType",
    "open_gguf",
    "parse_header",
    "type_name",
    "write_gguf",
]
