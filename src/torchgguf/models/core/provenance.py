"""Where a model came from: what is needed to write the file again, or to describe a new one."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from torch import Tensor

from torchgguf.container import GGUFFile, Metadata, TensorType
from torchgguf.models.core.config import Config


class Origin(NamedTuple):
    """The folder that a model came from, and its name: a repository's is not that of its cached files."""

    folder: Path
    name: str


@dataclass(frozen=True)
class GGUFSource:
    """What to know of the file a model came from, in order to write it again.

    Attributes:
        metadata: all of it, types and order included.
        types: each tensor's type, in the file's order.
        config: as it was read, to tell what has been changed since.
        config_tensors: those of the tensors that belong to the config.
    """

    metadata: Metadata
    types: dict[str, TensorType]
    config: Config
    config_tensors: dict[str, Tensor]

    @classmethod
    def of(cls, file: GGUFFile, config: Config, config_tensors: frozenset[str]) -> Self:
        """Gather it from an open file."""
        types = {name: info.type for name, info in file.tensors.items()}
        return cls(
            file.metadata, types, config, {name: file[name] for name in types if name in config_tensors}
        )
