"""Auto classes: the class that fits a file, found by what the file says."""

from os import PathLike
from typing import Any, ClassVar

import torch

from torchgguf.container import GGUFError, GGUFFile
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import PreTrainedConfig
from torchgguf.models.llama import LlamaForCausalLM, LlamaModel
from torchgguf.models.loading import load_model, open_model
from torchgguf.models.mistral import MistralForCausalLM, MistralModel
from torchgguf.models.qwen2 import Qwen2ForCausalLM, Qwen2Model

# One row an architecture: the model without a head, the language model.
MODELS: tuple[tuple[type[PreTrainedModel], type[PreTrainedModel]], ...] = (
    (LlamaModel, LlamaForCausalLM),
    (MistralModel, MistralForCausalLM),
    (Qwen2Model, Qwen2ForCausalLM),
)


def find_class(file: GGUFFile, column: int) -> type[PreTrainedModel]:
    """Find the class in a column of `MODELS` that reads a file.

    Raises:
        GGUFError: there is none; the message lists the architectures there are.
    """
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise GGUFError(f"the file holds no model: its general.type is {kind!r}")
    for row in MODELS:
        if row[column].architecture.reads(file.metadata):
            return row[column]
    known = ", ".join(dict.fromkeys(row[column].architecture.gguf for row in MODELS))
    actual = file.metadata.get("general.architecture")
    raise GGUFError(f"architecture {actual!r} is not supported; these are: {known}")


class AutoConfig:
    """The config of whatever model a file holds."""

    @staticmethod
    def from_pretrained(path: str | PathLike[str], gguf_file: str | None = None) -> PreTrainedConfig:
        """Read the config; arguments and errors are those of `PreTrainedModel.from_pretrained`."""
        with open_model(path, gguf_file) as file:
            return find_class(file, 0).architecture.read_config(file)

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> PreTrainedConfig:
        """Build the config that a config.json with this `model_type` and these fields is for."""
        classes = {
            row[0].architecture.config_class.model_type: row[0].architecture.config_class for row in MODELS
        }
        if model_type not in classes:
            raise ValueError(f"model_type {model_type!r} is not supported; these are: {', '.join(classes)}")
        return classes[model_type].from_dict(fields)


class AutoModel:
    """Whatever model a file holds, without its head."""

    _column: ClassVar[int] = 0

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        gguf_file: str | None = None,
        *,
        dequantize: bool = False,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str = "sdpa",
    ) -> Any:
        """Load the model; arguments and errors are those of `PreTrainedModel.from_pretrained`."""
        with open_model(path, gguf_file) as file:
            return load_model(find_class(file, cls._column), file, dequantize, dtype, attn_implementation)

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Any:
        """Build a model with random weights."""
        for row in MODELS:
            if row[cls._column].architecture.config_class is type(config):
                return row[cls._column](config)
        raise ValueError(f"{type(config).__name__} is the config of no model here")


class AutoModelForCausalLM(AutoModel):
    """Whatever language model a file holds."""

    _column = 1
