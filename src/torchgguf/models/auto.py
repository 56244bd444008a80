"""Auto classes: the class that fits a file, found by what the file says."""

from os import PathLike
from typing import Any, ClassVar, NamedTuple, Unpack

import torch

from torchgguf.container import GGUFError, GGUFFile, open_gguf
from torchgguf.hub import HubOptions, find_gguf
from torchgguf.models.architecture import Architecture
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.bloom import (
    BloomForCausalLM,
    BloomForQuestionAnswering,
    BloomForSequenceClassification,
    BloomForTokenClassification,
    BloomModel,
)
from torchgguf.models.config import PreTrainedConfig, floating_dtype
from torchgguf.models.gpt2 import GPT2LMHeadModel, GPT2Model
from torchgguf.models.gpt2_heads import (
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
)
from torchgguf.models.llama import (
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)
from torchgguf.models.loading import load_model
from torchgguf.models.mistral import (
    MistralForCausalLM,
    MistralForQuestionAnswering,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    MistralModel,
)
from torchgguf.models.phi3 import (
    Phi3ForCausalLM,
    Phi3ForSequenceClassification,
    Phi3ForTokenClassification,
    Phi3Model,
)
from torchgguf.models.qwen2 import (
    Qwen2ForCausalLM,
    Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)
from torchgguf.models.qwen2_moe import (
    Qwen2MoeForCausalLM,
    Qwen2MoeForQuestionAnswering,
    Qwen2MoeForSequenceClassification,
    Qwen2MoeForTokenClassification,
    Qwen2MoeModel,
)


class Family(NamedTuple):
    """The classes of one architecture; None where transformers has none."""

    base: type[PreTrainedModel]
    causal_lm: type[PreTrainedModel]
    sequence_classification: type[PreTrainedModel] | None = None
    token_classification: type[PreTrainedModel] | None = None
    question_answering: type[PreTrainedModel] | None = None

    @property
    def architecture(self) -> Architecture:
        """The tables that all these classes share."""
        return self.base.architecture

    @property
    def model_type(self) -> str:
        """What config.json calls the architecture."""
        return self.architecture.config_class.model_type


MODELS: tuple[Family, ...] = (
    Family(
        LlamaModel,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        LlamaForQuestionAnswering,
    ),
    Family(
        MistralModel,
        MistralForCausalLM,
        MistralForSequenceClassification,
        MistralForTokenClassification,
        MistralForQuestionAnswering,
    ),
    Family(
        Qwen2Model,
        Qwen2ForCausalLM,
        Qwen2ForSequenceClassification,
        Qwen2ForTokenClassification,
        Qwen2ForQuestionAnswering,
    ),
    Family(
        Qwen2MoeModel,
        Qwen2MoeForCausalLM,
        Qwen2MoeForSequenceClassification,
        Qwen2MoeForTokenClassification,
        Qwen2MoeForQuestionAnswering,
    ),
    Family(
        GPT2Model,
        GPT2LMHeadModel,
        GPT2ForSequenceClassification,
        GPT2ForTokenClassification,
        GPT2ForQuestionAnswering,
    ),
    Family(Phi3Model, Phi3ForCausalLM, Phi3ForSequenceClassification, Phi3ForTokenClassification),
    Family(
        BloomModel,
        BloomForCausalLM,
        BloomForSequenceClassification,
        BloomForTokenClassification,
        BloomForQuestionAnswering,
    ),
)


def family_of_file(file: GGUFFile) -> Family:
    """Find the classes that read a file.

    Raises:
        GGUFError: there are none; the message lists the architectures there are.
    """
    if (kind := file.metadata.get("general.type", "model")) != "model":
        raise GGUFError(f"the file holds no model: its general.type is {kind!r}")
    for family in MODELS:
        if family.architecture.reads(file.metadata):
            return family
    known = ", ".join(dict.fromkeys(family.architecture.gguf for family in MODELS))
    actual = file.metadata.get("general.architecture")
    raise GGUFError(f"architecture {actual!r} is not supported; these are: {known}")


def family_of_type(model_type: str) -> Family:
    """Find the classes for a config.json with this `model_type`.

    Raises:
        ValueError: there are none; the message lists the types there are.
    """
    families = {family.model_type: family for family in MODELS}
    if model_type not in families:
        raise ValueError(f"model_type {model_type!r} is not supported; these are: {', '.join(families)}")
    return families[model_type]


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
            return family_of_file(file).architecture.read_config(file)

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> PreTrainedConfig:
        """Build the config that a config.json with this `model_type` and these fields is for."""
        return family_of_type(model_type).architecture.config_class.from_dict(fields)


class AutoModel:
    """Whatever model a file holds, without its head."""

    _task: ClassVar[str] = "base"  # the field of `Family`

    @classmethod
    def _class_in(cls, family: Family) -> type[PreTrainedModel]:
        found: type[PreTrainedModel] | None = getattr(family, cls._task)
        if found is None:
            known = ", ".join(other.model_type for other in MODELS if getattr(other, cls._task))
            raise ValueError(
                f"{cls.__name__} has no class for model_type {family.model_type!r}; it has one for: {known}"
            )
        return found

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
            model_class = cls._class_in(family_of_file(file))
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
        for family in MODELS:
            if family.architecture.config_class is type(config):
                model = cls._class_in(family)(config, attn_implementation)
                return model.to(floating_dtype(dtype or config.dtype))
        raise ValueError(f"{type(config).__name__} is the config of no model here")


class AutoModelForCausalLM(AutoModel):
    """Whatever language model a file holds."""

    _task = "causal_lm"


class AutoModelForSequenceClassification(AutoModel):
    """Whatever model a file holds, with a head that judges texts."""

    _task = "sequence_classification"


class AutoModelForTokenClassification(AutoModel):
    """Whatever model a file holds, with a head that judges tokens."""

    _task = "token_classification"


class AutoModelForQuestionAnswering(AutoModel):
    """Whatever model a file holds, with a head that finds answers in texts."""

    _task = "question_answering"
