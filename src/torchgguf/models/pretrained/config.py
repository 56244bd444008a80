"""`PreTrainedConfig`: load and save configs."""

from os import PathLike
from pathlib import Path
from typing import Any, Self

from torchgguf.container.atomic import atomic_write
from torchgguf.models.core.config import Config, config_dataclass
from torchgguf.models.io.opening import load_config
from torchgguf.models.io.options import LoadOptions


@config_dataclass
class PreTrainedConfig(Config):
    """Base of all configs that load and save. Subclasses, each a `config_dataclass`, add fields."""

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
