"""Auto classes: load the class that the file or the config names."""

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, ClassVar

import torch

from torchgguf.models import registry
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import floating_dtype
from torchgguf.models.io.assembling import load_pretrained
from torchgguf.models.io.opening import load_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.savable import refuse_packed
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.models.pretrained.model import PreTrainedModel

# Python looks for modules below this one, which transformers has: see `_module_paths`.
__path__: list[str] = []


class AutoConfig:
    """Load the config of any supported model."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> PreTrainedConfig:
        """Read a config, from config.json or from a GGUF file.

        Arguments and errors are those of `PreTrainedModel.from_pretrained`, except for options of weights.
        The place may also be a file such as config.json.
        """
        config = load_config(pretrained_model_name_or_path, gguf_file, LoadOptions.of(options))
        assert isinstance(config, PreTrainedConfig)
        return config

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> PreTrainedConfig:
        """Build the config of a model type with these fields of config.json."""
        config = registry.architecture_of_type(model_type).config_class.from_dict(fields)
        assert isinstance(config, PreTrainedConfig)
        return config


class AutoModel:
    """Load any supported model without its head."""

    _task: ClassVar[str] = "base"  # the key in `Architecture.classes`

    @classmethod
    def _class_in(cls, architecture: Architecture) -> type[PreTrainedModel]:
        found: type[PreTrainedModel] | None = architecture.classes.get(cls._task)
        if found is None:
            model_type = architecture.config_class.model_type
            known = ", ".join(each.__name__ for each in architecture.classes.values())
            raise ValueError(
                f"{cls.__name__} has no class for model_type {model_type!r}, which has: {known} "
                "(docs/models.md lists the heads of all models)"
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
        """Build a model with random weights.

        Args:
            config: of a supported model.
            attn_implementation: by default the config's, or else `"sdpa"`.
            dtype: of the weights; by default the config's.

        Returns:
            The model.

        Raises:
            ValueError: the config is of no supported model, or of one without a class for the task.
        """
        refuse_packed(vars(config), type(config).__name__)
        if config.model_type in registry.MODEL_TYPES:
            architecture = registry.architecture_of_config(config)
            if architecture.config_class is type(config):
                model = cls._class_in(architecture)(config, attn_implementation)
                return model.to(floating_dtype(dtype or config.dtype))
        raise ValueError(f"{type(config).__name__} is not the config of a supported model")


class AutoModelForCausalLM(AutoModel):
    """Load any supported language model."""

    _task = "causal_lm"


class AutoModelForSeq2SeqLM(AutoModel):
    """Load any supported model of an encoder and a decoder that predicts tokens."""

    _task = "seq2seq_lm"


class AutoModelForSequenceClassification(AutoModel):
    """Load any supported model with a head that classifies texts."""

    _task = "sequence_classification"


class AutoModelForTokenClassification(AutoModel):
    """Load any supported model with a head that classifies tokens."""

    _task = "token_classification"


class AutoModelForQuestionAnswering(AutoModel):
    """Load any supported model with a head that finds answers in texts."""

    _task = "question_answering"


class _ConfigClasses(Mapping[str, type[PreTrainedConfig]]):
    """The config class of each model type; it is imported when it is asked for."""

    def __getitem__(self, model_type: str) -> type[PreTrainedConfig]:
        if model_type not in registry.MODEL_TYPES:
            raise KeyError(model_type)
        found = registry.architecture_of_type(model_type).config_class
        assert issubclass(found, PreTrainedConfig)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(registry.MODEL_TYPES)

    def __len__(self) -> int:
        return len(registry.MODEL_TYPES)


class _ModelClasses(Mapping[type[PreTrainedConfig], type[PreTrainedModel]]):
    """The class that an Auto class loads for each config class that has one."""

    def __init__(self, auto_class: type[AutoModel]) -> None:
        self._auto = auto_class

    def __getitem__(self, config_class: type[PreTrainedConfig]) -> type[PreTrainedModel]:
        if config_class not in {*self}:
            raise KeyError(config_class)
        return self._auto._class_in(registry.architecture_of_type(config_class.model_type))

    def __iter__(self) -> Iterator[type[PreTrainedConfig]]:
        return (CONFIG_MAPPING[kind] for kind in registry.architectures_with(self._auto._task))

    def __len__(self) -> int:
        return len(registry.architectures_with(self._auto._task))


# Examples of transformers list model types by them.
CONFIG_MAPPING = _ConfigClasses()
MODEL_MAPPING = _ModelClasses(AutoModel)
MODEL_FOR_CAUSAL_LM_MAPPING = _ModelClasses(AutoModelForCausalLM)
MODEL_FOR_QUESTION_ANSWERING_MAPPING = _ModelClasses(AutoModelForQuestionAnswering)
MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING = _ModelClasses(AutoModelForSeq2SeqLM)
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING = _ModelClasses(AutoModelForSequenceClassification)
MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING = _ModelClasses(AutoModelForTokenClassification)
