"""Record where a model came from, in order to write the file again or to describe a new one."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from torch import Tensor

from torchgguf.container import Metadata, TensorType
from torchgguf.models.core.config import Config
from torchgguf.models.core.usual_tensors import UsualTensors


class Origin(NamedTuple):
    """The folder that a model came from, and its name, which for a repository is not the folder's."""

    folder: Path
    name: str


@dataclass(frozen=True)
class GGUFSource:
    """The GGUF file that a model came from, as far as saving needs it.

    Attributes:
        metadata: all metadata, with types and order.
        types: the type of each tensor, in the file's order.
        config: the config as it was read; saving compares it with the model's.
        config_tensors: the tensors that belong to the config.
    """

    metadata: Metadata
    types: dict[str, TensorType]
    config: Config
    config_tensors: dict[str, Tensor]

    @classmethod
    def of(
        cls, metadata: Metadata, tensors: UsualTensors, config: Config, config_tensors: frozenset[str]
    ) -> Self:
        """Read it from an open file."""
        types = {name: info.type for name, info in tensors.infos.items()}
        return cls(
            metadata, types, config, {name: tensors.load(name) for name in types if name in config_tensors}
        )
