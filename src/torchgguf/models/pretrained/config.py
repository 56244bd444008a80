"""`PreTrainedConfig`: load and save configs."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from torchgguf.container.atomic import atomic_write
from torchgguf.models.core.config import Config, config_dataclass, floating_dtype
from torchgguf.models.io.opening import load_config
from torchgguf.models.io.options import LoadOptions


@config_dataclass
class PreTrainedConfig(Config):
    """Base of all configs that load and save. Subclasses, each a `config_dataclass`, add fields.

    Attributes:
        use_return_dict: always True: models return outputs by default.
        sub_configs: always empty: no config contains others.
    """

    use_return_dict: ClassVar[bool] = True
    sub_configs: ClassVar[Mapping[str, Any]] = {}
    transformers_version: ClassVar[str | None] = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> Self:
        """Read the config of a model; arguments and errors are those of `AutoConfig.from_pretrained`."""
        config = load_config(pretrained_model_name_or_path, gguf_file, LoadOptions.of(options))
        if not isinstance(config, cls):
            types = f"{cls.model_type!r}, got {config.model_type!r} from {pretrained_model_name_or_path}"
            raise ValueError(f"the model_type of {cls.__name__} must be {types}")
        return config

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write config.json into a folder, which is created if it is missing."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(save_directory, "config.json")) as file:
            file.write(self.to_json_string(use_diff=False).encode())

    @property
    def name_or_path(self) -> str:
        """The argument of `from_pretrained`, or an empty text."""
        name: str = vars(self).get("_name_or_path") or ""
        return name

    @name_or_path.setter
    def name_or_path(self, name: str) -> None:
        vars(self)["_name_or_path"] = name

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The older name of `dtype`."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: torch.dtype | str | None) -> None:
        self.dtype = None if dtype is None else floating_dtype(dtype)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """Return the config itself: it is that of a model of text only."""
        return self

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set several fields at once.

        Raises:
            ValueError: as the constructor; then nothing is set.
        """
        changed = vars(self.from_dict({**self.to_dict(), **config_dict}, **config_dict))
        if "attn_implementation" not in config_dict:
            del changed["_attn_implementation"]
        vars(self).update(changed)

    @classmethod
    def from_json_file(cls, json_file: str | PathLike[str]) -> Self:
        """Read a file such as config.json.

        Raises:
            ValueError: the file is invalid.
        """
        return cls.from_dict(json.loads(Path(json_file).read_bytes()))

    def to_json_file(self, json_file_path: str | PathLike[str], use_diff: bool = True) -> None:
        """Write a file such as config.json; arguments are those of `to_json_string`."""
        with atomic_write(Path(json_file_path)) as file:
            file.write(self.to_json_string(use_diff).encode())


PretrainedConfig = PreTrainedConfig
