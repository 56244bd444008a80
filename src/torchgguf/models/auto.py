"""Auto classes: the class that fits a file, found by what the file says."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, ClassVar, NamedTuple

import torch

from torchgguf.container import GGUFError, GGUFFile
from torchgguf.models.architectures.bloom import (
    BloomForCausalLM,
    BloomForQuestionAnswering,
    BloomForSequenceClassification,
    BloomForTokenClassification,
    BloomModel,
)
from torchgguf.models.architectures.gpt2 import GPT2LMHeadModel, GPT2Model
from torchgguf.models.architectures.gpt2_heads import (
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
)
from torchgguf.models.architectures.llama import (
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)
from torchgguf.models.architectures.mistral import (
    MistralForCausalLM,
    MistralForQuestionAnswering,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    MistralModel,
)
from torchgguf.models.architectures.phi3 import (
    Phi3ForCausalLM,
    Phi3ForSequenceClassification,
    Phi3ForTokenClassification,
    Phi3Model,
)
from torchgguf.models.architectures.qwen2 import (
    Qwen2ForCausalLM,
    Qwen2ForQuestionAnswering,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)
from torchgguf.models.architectures.qwen2_moe import (
    Qwen2MoeForCausalLM,
    Qwen2MoeForQuestionAnswering,
    Qwen2MoeForSequenceClassification,
    Qwen2MoeForTokenClassification,
    Qwen2MoeModel,
)
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import PreTrainedConfig, floating_dtype
from torchgguf.models.io.checkpoint import Checkpoint, CheckpointError
from torchgguf.models.io.checkpoint_loading import load_checkpoint
from torchgguf.models.io.devices import spread
from torchgguf.models.io.loading import load_model
from torchgguf.models.io.opening import open_source
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.models.quantizers.protocol import refuse_packed


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


# The first that reads a file is taken.
MODELS: tuple[Family, ...] = (
    Family(
        MistralModel,
        MistralForCausalLM,
        MistralForSequenceClassification,
        MistralForTokenClassification,
        MistralForQuestionAnswering,
    ),
    Family(
        LlamaModel,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        LlamaForQuestionAnswering,
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


def counterpart(model_class: type[PreTrainedModel], family: Family) -> type[PreTrainedModel]:
    """Return the class of a family that does what a class of another does, or else its language model."""
    column = next((other.index(model_class) for other in MODELS if model_class in other), 1)
    return family[column] or family.causal_lm


def load_pretrained(
    choose: Callable[[Family], type[PreTrainedModel]],
    place: str | PathLike[str],
    gguf_file: str | None,
    given: Mapping[str, Any],
) -> Any:
    """Load the model that lies at a place, as the class that is chosen among those that fit it.

    Arguments and errors are those of `PreTrainedModel.from_pretrained`.
    """
    options = LoadOptions.of(given)
    with open_source(place, gguf_file, **options.hub) as source:
        if isinstance(source, Checkpoint):
            config = read_config(source, options)
            model = load_checkpoint(choose(family_of_type(config.model_type)), source, config, options)
        else:
            try:
                model_class = choose(family_of_file(source))
            except CheckpointError as error:
                raise GGUFError(str(error)) from None
            model = load_model(model_class, source, options)
    spread(model, options.device_map, options.max_memory, options.offload_folder)
    return model


def read_config(checkpoint: Checkpoint, options: LoadOptions) -> PreTrainedConfig:
    """Return the config of a checkpoint, or the one given in its place, with the changes asked for."""
    if isinstance(options.config, PreTrainedConfig):
        values: dict[str, Any] = {
            **options.config.to_dict(),
            "attn_implementation": options.config.attn_implementation,
        }
    else:
        if options.config is not None:
            checkpoint = Checkpoint(options.config, **options.hub)
        values = checkpoint.config()
        refuse_packed(values, checkpoint)
    if not isinstance(model_type := values.get("model_type"), str):
        raise CheckpointError(f"{checkpoint}: the config states no model_type")
    return family_of_type(model_type).architecture.config_class.from_dict(values, **options.changes)


class AutoConfig:
    """The config of whatever model lies at a place."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> PreTrainedConfig:
        """Read a config, from config.json or from a GGUF file.

        Options are those of `PreTrainedModel.from_pretrained` that are of the config or of fetching; errors
        are those of it. The place may also be a file such as config.json.
        """
        sorted_options = LoadOptions.of(options)
        with open_source(pretrained_model_name_or_path, gguf_file, **sorted_options.hub) as source:
            if isinstance(source, Checkpoint):
                config = read_config(source, sorted_options)
            else:
                config = family_of_file(source).architecture.read_config(source)
                config = config.from_dict(config.to_dict(), **sorted_options.changes)
        config.attn_implementation = sorted_options.attn_implementation or config.attn_implementation
        if sorted_options.dtype not in (None, "auto"):
            config.dtype = floating_dtype(sorted_options.dtype)
        return config

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
        cls, pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> Any:
        """Load the model; arguments and errors are those of `PreTrainedModel.from_pretrained`."""
        return load_pretrained(cls._class_in, pretrained_model_name_or_path, gguf_file, options)

    @classmethod
    def from_config(
        cls,
        config: PreTrainedConfig,
        *,
        attn_implementation: str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> Any:
        """Build a model with random weights; their dtype is the config's, unless one is given.

        So is the attention implementation, which is `"sdpa"` if neither says.
        """
        refuse_packed(vars(config), type(config).__name__)
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
