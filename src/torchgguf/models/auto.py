"""Auto classes: the class that fits a file, found by what the file says."""

from os import PathLike
from typing import Any, ClassVar, Unpack

import torch

from torchgguf.container import GGUFError, GGUFFile, open_gguf
from torchgguf.hub import HubOptions, find_gguf
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import PreTrainedConfig, floating_dtype
from torchgguf.models.llama import LlamaForCausalLM, LlamaModel
from torchgguf.models.loading import load_model
from torchgguf.models.mistral import MistralForCausalLM, MistralModel
from torchgguf.models.qwen2 import Qwen2ForCausalLM, Qwen2Model

# One row an architecture: the model without a head, the language model.
MODELS: tuple[tuple[type[PreTrainedModel], type[PreTrainedModel]], ...] = (
    (LlamaModel, LlamaForCausalLM),
    (MistralModel, MistralForCausalLM),
    (Qwen2Model, Qwen2ForCausalLM),
)


def find_classes(file: GGUFFile) -> tuple[type[PreTrainedModel], type[PreTrainedModel]]:
    """Find the row of `MODELS` that reads a file.

    Raises:
        GGUFError: there is none; the message lists the architectures there are.
    """
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise GGUFError(f"the file holds no model: its general.type is {kind!r}")
    for row in MODELS:
        if row[0].architecture.reads(file.metadata):
            return row
    known = ", ".join(dict.fromkeys(row[0].architecture.gguf for row in MODELS))
    actual = file.metadata.get("general.architecture")
    raise GGUFError(f"architecture {actual!r} is not supported; these are: {known}")


class AutoConfig:
    """The config of whatever model a file holds."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | None = None,
        **hub: Unpack[HubOptions],
    ) -> PreTrainedConfig:
        """Read the config; arguments and errors are those of `PreTrainedModel.from_pretrained`."""
        with open_gguf(find_gguf(pretrained_model_name_or_path, gguf_file, **hub)) as file:
            return find_classes(file)[0].architecture.read_config(file)

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
        pretrained_model_name_or_path: str | PathLike[str],
        gguf_file: str | None = None,
        *,
        dequantize: bool = False,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str = "sdpa",
        **hub: Unpack[HubOptions],
    ) -> Any:
        """Load the model; arguments and errors are those of `PreTrainedModel.from_pretrained`."""
        with open_gguf(find_gguf(pretrained_model_name_or_path, gguf_file, **hub)) as file:
            model_class = find_classes(file)[cls._column]
            return load_model(model_class, file, dequantize, dtype, attn_implementation)

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        *,
        attn_implementation: str = "sdpa",
        dtype: torch.dtype | str | None = None,
    ) -> Any:
        """Build a model with random weights; their dtype is the config's, unless one is given."""
        for row in MODELS:
            if row[cls._column].architecture.config_class is type(config):
                model = row[cls._column](config, attn_implementation)
                return model.to(floating_dtype(dtype or config.dtype))
        raise ValueError(f"{type(config).__name__} is the config of no model here")


class AutoModelForCausalLM(AutoModel):
    """Whatever language model a file holds."""

    _column = 1
