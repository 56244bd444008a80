"""`pipeline`: create a pipeline from the names of a task, a model and a tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import torch

from torchgguf.compat import split_options
from torchgguf.hub import HubOptions
from torchgguf.models import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    registry,
)
from torchgguf.models.bridge.from_transformers import from_transformers, is_of_transformers
from torchgguf.models.bridge.tokenizer import is_foreign_tokenizer, own_tokenizer
from torchgguf.models.io.devices import available_device
from torchgguf.pipelines.base import Pipeline
from torchgguf.pipelines.feature_extraction import FeatureExtractionPipeline
from torchgguf.pipelines.question_answering import QuestionAnsweringPipeline
from torchgguf.pipelines.text2text_generation import Text2TextGenerationPipeline
from torchgguf.pipelines.text_classification import TextClassificationPipeline
from torchgguf.pipelines.text_generation import TextGenerationPipeline
from torchgguf.pipelines.token_classification import TokenClassificationPipeline
from torchgguf.tokenization import AutoTokenizer, Tokenizer

_logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """The pipeline of a task, the auto class that loads its models, and the `task` of their classes."""

    pipeline: type[Pipeline]
    auto: type[AutoModel]
    head: str


TASKS: dict[str, Task] = {
    "text-generation": Task(TextGenerationPipeline, AutoModelForCausalLM, "causal_lm"),
    "text2text-generation": Task(Text2TextGenerationPipeline, AutoModelForSeq2SeqLM, "seq2seq_lm"),
    "text-classification": Task(
        TextClassificationPipeline, AutoModelForSequenceClassification, "sequence_classification"
    ),
    "token-classification": Task(
        TokenClassificationPipeline, AutoModelForTokenClassification, "token_classification"
    ),
    "question-answering": Task(
        QuestionAnsweringPipeline, AutoModelForQuestionAnswering, "question_answering"
    ),
    "feature-extraction": Task(FeatureExtractionPipeline, AutoModel, "base"),
}
TASK_ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}

# Options of transformers' pipeline that are unsupported here, with the values that have no effect.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "assistant_model": (None,),
    "binary_output": (None, False),
    "code_revision": (None,),
    "feature_extractor": (None,),
    "framework": (None, "pt"),
    "image_processor": (None,),
    "num_workers": (None, 0),
    "pipeline_class": (None,),
    "processor": (None,),
    "trust_remote_code": (None, True, False),
    "use_fast": (None, True),
    "video_processor": (None,),
}


def pipeline(
    task: str | None = None,
    model: str | PathLike[str] | PreTrainedModel | None = None,
    config: Any = None,
    tokenizer: str | PathLike[str] | Tokenizer | None = None,
    *,
    gguf_file: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    device: int | str | torch.device | None = None,
    device_map: Any = None,
    dtype: torch.dtype | str | None = "auto",
    torch_dtype: torch.dtype | str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    batch_size: int = 1,
    **options: Any,
) -> Any:
    """Create a pipeline.

    Args:
        task: a name in `TASKS`, or "sentiment-analysis" or "ner"; by default the task of the model's head.
        model: a GGUF file, a folder, a repository of the Hugging Face Hub, or a model, also of transformers.
        config: replaces the config of the model.
        tokenizer: the tokenizer, also of transformers, or where to load it from; by default from the same
            place as the model.
        gguf_file: the name of the file in the folder or repository.
        revision: a branch, tag or commit of the repository.
        token: the token for the login to the Hub.
        device: the index of a GPU (on a machine without GPU: the CPU), `"cpu"`, `"cuda:0"`, ...; by default
            the first GPU, or else the CPU.
        device_map: how to spread the model over devices, instead of `device`.
        dtype: the dtype of activations and plain weights; `"auto"` is that of the checkpoint.
        torch_dtype: the older name of `dtype`.
        model_kwargs: more options for `from_pretrained` of the model, such as `quantization_config`.
        batch_size: the number of inputs in a batch.
        options: options of the task, which apply to every call; and `HubOptions`.

    Returns:
        The task's `Pipeline`.

    Raises:
        TypeError: the model or the tokenizer has another type, or the task has no such option.
        ValueError: the task or device is unknown, the model does not match the task, the value of an option
            is unsupported, or arguments contradict each other.
        CheckpointError, GGUFError, FileNotFoundError, PermissionError, ConnectionError: as `from_pretrained`.
    """
    if model is None:
        raise ValueError("pipeline(task, model=...) requires a model: a file, a folder or a repository")
    (options,) = split_options(options, _NEUTRAL)
    stated = {"gguf_file": gguf_file, "revision": revision, "token": token}
    source: dict[str, Any] = {name: value for name, value in stated.items() if value is not None}
    loading = _loading(
        model_kwargs or {},
        config=config,
        device_map=device_map,
        dtype=None if dtype == "auto" else dtype,
        torch_dtype=torch_dtype,
    )
    for given in (options, loading):
        source |= {name: given.pop(name) for name in HubOptions.__annotations__ if name in given}
    if device is not None and "device_map" in loading:
        raise ValueError("pass either device or device_map, not both")
    if is_of_transformers(model):
        model = from_transformers(model)
    if is_foreign_tokenizer(tokenizer):
        tokenizer = own_tokenizer(tokenizer)
    _check_kind("model", model, PreTrainedModel)
    target = None if "device_map" in loading else _device(device)
    row = TASKS[name := _task_name(task, model, source)]
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        _check_kind("tokenizer", tokenizer, Tokenizer)
        # Next to a model these options belong to the place of the model only.
        own = () if isinstance(model, PreTrainedModel) else ("gguf_file", "revision")
        place = {option: value for option, value in source.items() if option not in own}
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **place)
    if isinstance(model, PreTrainedModel):
        _check_loaded(model, name, device, loading)
        if tokenizer is None:
            raise ValueError("a loaded model has no tokenizer: pass tokenizer=")
    else:
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(model, **source)
        model = row.auto.from_pretrained(model, **source, **loading)
    assert isinstance(model, PreTrainedModel)
    if target is not None and getattr(model, "hf_device_map", None) is None:
        model.to(target)
    return row.pipeline(model, tokenizer, batch_size, **options)


def _check_kind(argument: str, value: object, kind: type) -> None:
    if not isinstance(value, (kind, str, PathLike)):
        actual = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{argument}= must be a path, a repository or a {kind.__name__} of torchgguf, got a {actual}"
        )


def _loading(model_kwargs: Mapping[str, Any], **named: Any) -> dict[str, Any]:
    """Merge options of `from_pretrained` from both places; the same one in both is an error."""
    given = {name: value for name, value in named.items() if value is not None}
    if twice := given.keys() & model_kwargs.keys():
        raise ValueError(f"{min(twice)} is both an argument and in model_kwargs: pass it once")
    return {**given, **model_kwargs}


def _check_loaded(model: PreTrainedModel, task: str, device: object, loading: Mapping[str, Any]) -> None:
    if loading:
        raise ValueError(f"{', '.join(loading)}: only for loading, but the model is loaded already")
    if device is not None and getattr(model, "hf_device_map", None) is not None:
        raise ValueError("device: the device_map of the model decides, so do not pass it")
    # Features come from the model without its head, so any head is accepted.
    if TASKS[task].auto is not AutoModel and model.task != TASKS[task].head:
        fitting = TASKS[task].auto.__name__
        raise ValueError(f"{type(model).__name__} does not support {task}: load the model with {fitting}")


def _task_name(task: str | None, model: Any, source: dict[str, Any]) -> str:
    if task is not None:
        name = TASK_ALIASES.get(task, task)
        if name not in TASKS:
            raise ValueError(f"unknown task {task!r}; known: {', '.join((*TASKS, *TASK_ALIASES))}")
        return name
    if isinstance(model, PreTrainedModel):
        stated, head = [type(model).__name__], model.task
    else:
        config = AutoConfig.from_pretrained(model, **source)
        architecture = registry.architecture_of_config(config)
        # GGUF files state no classes.
        stated = config.architectures or [architecture.main_class.__name__]
        classes = architecture.classes.items()
        head = next((task for task, found in classes if found.__name__ in stated), None)
    for name, row in TASKS.items():
        if row.head == head:
            return name
    raise ValueError(f"{stated[0]} matches no task: pass one of {', '.join(TASKS)}")


def _device(device: int | str | torch.device | None) -> torch.device:
    if isinstance(device, str | torch.device):
        return available_device(device)
    if device is not None and device < 0:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return available_device(torch.device("cuda", device or 0))
    if device is not None:
        _logger.warning("device=%d: there is no GPU, the pipeline falls back to the CPU", device)
    return torch.device("cpu")
