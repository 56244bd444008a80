"""`pipeline`: a model, its tokenizer and a task, put together by their names."""

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
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from torchgguf.models.auto import MODELS
from torchgguf.models.devices import available_device
from torchgguf.pipelines.base import Pipeline
from torchgguf.pipelines.feature_extraction import FeatureExtractionPipeline
from torchgguf.pipelines.question_answering import QuestionAnsweringPipeline
from torchgguf.pipelines.text_classification import TextClassificationPipeline
from torchgguf.pipelines.text_generation import TextGenerationPipeline
from torchgguf.pipelines.token_classification import TokenClassificationPipeline
from torchgguf.tokenization import AutoTokenizer, Tokenizer

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """What does a task, and what loads a model for it; `head` is the field of `Family` with the models."""

    pipeline: type[Pipeline]
    auto: type[AutoModel]
    head: str

    @property
    def classes(self) -> tuple[type[PreTrainedModel], ...]:
        """The models for the task: one an architecture that has any."""
        return tuple(found for family in MODELS if (found := getattr(family, self.head)) is not None)


TASKS: dict[str, Task] = {
    "text-generation": Task(TextGenerationPipeline, AutoModelForCausalLM, "causal_lm"),
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
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}

# Options of transformers' pipeline that are not here, with the values that ask for nothing else than is done.
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
    "trust_remote_code": (None, False),
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
    """Put a pipeline together.

    Args:
        task: a name in `TASKS`, or "sentiment-analysis" or "ner"; by default what the model's head is for.
        model: a GGUF file, a folder, a repository of the Hugging Face Hub, or a model.
        config: in place of the model's own.
        tokenizer: where it comes from if not from where the model does, or the tokenizer itself.
        gguf_file: name of the file in the folder or repository.
        revision: branch, tag or commit of the repository.
        token: login for it.
        device: where to run: a number of a GPU (without one, the CPU), `"cpu"`, `"cuda:0"`, ...; by default
            the first GPU if there is one.
        device_map: how to spread the model over devices, instead of `device`.
        dtype: of the activations and of plain weights; `"auto"` is that of the checkpoint.
        torch_dtype: the older name of `dtype`.
        model_kwargs: more for the model's `from_pretrained`, such as `quantization_config`.
        batch_size: how many inputs the model sees at once.
        options: of the task, to hold for every call; and `HubOptions`.

    Returns:
        The task's `Pipeline`.

    Raises:
        TypeError: the model or the tokenizer is none of these, or the task does not know an option.
        ValueError: an unknown task or device, a model that is not for the task, an option whose value is not
            supported, or arguments that contradict each other.
        CheckpointError, GGUFError, FileNotFoundError, PermissionError, ConnectionError: as `from_pretrained`.
    """
    if model is None:
        raise ValueError("name a model: pipeline(task, model=...), a file, a folder or a repository")
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
        raise ValueError("give device or device_map, not both")
    _check_kind("model", model, PreTrainedModel)
    target = None if "device_map" in loading else _device(device)
    row = TASKS[name := _task_name(task, model, source)]
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        _check_kind("tokenizer", tokenizer, Tokenizer)
        # Beside a model these say where in the model's place its file is.
        own = () if isinstance(model, PreTrainedModel) else ("gguf_file", "revision")
        place = {option: value for option, value in source.items() if option not in own}
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **place)
    if isinstance(model, PreTrainedModel):
        _check_loaded(model, name, device, loading)
        if tokenizer is None:
            raise ValueError("a model that is loaded already does not name its tokenizer: give tokenizer=")
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
            f"{argument}= is a path, a repository or a {kind.__name__} of torchgguf, not a {actual}"
        )


def _loading(model_kwargs: Mapping[str, Any], **named: Any) -> dict[str, Any]:
    """Return the options of `from_pretrained`, which may stand in either place but not in both."""
    given = {name: value for name, value in named.items() if value is not None}
    if twice := given.keys() & model_kwargs.keys():
        raise ValueError(f"{min(twice)} is given twice: as an argument and in model_kwargs")
    return {**given, **model_kwargs}


def _check_loaded(model: PreTrainedModel, task: str, device: object, loading: Mapping[str, Any]) -> None:
    if loading:
        raise ValueError(f"{', '.join(loading)}: for loading, and the model is loaded already")
    if device is not None and getattr(model, "hf_device_map", None) is not None:
        raise ValueError("device: the model is where its device_map has put it, so leave this out")
    # Features are of the model without its head, whichever that is.
    if TASKS[task].auto is not AutoModel and not isinstance(model, TASKS[task].classes):
        fitting = TASKS[task].auto.__name__
        raise ValueError(f"{type(model).__name__} is not for {task}: load the model with {fitting}")


def _task_name(task: str | None, model: Any, source: dict[str, Any]) -> str:
    if task is not None:
        name = ALIASES.get(task, task)
        if name not in TASKS:
            raise ValueError(f"task {task!r} is unknown; these are: {', '.join((*TASKS, *ALIASES))}")
        return name
    classes: list[str] | None
    if isinstance(model, PreTrainedModel):
        classes = [kind.__name__ for kind in type(model).__mro__]
    else:
        classes = AutoConfig.from_pretrained(model, **source).architectures
        if not classes:  # as in GGUF files, which hold language models
            return "text-generation"
    for name, row in TASKS.items():
        if {kind.__name__ for kind in row.classes} & {*classes}:
            return name
    raise ValueError(f"{classes[0]} does not say which task it is for; name one of {', '.join(TASKS)}")


def _device(device: int | str | torch.device | None) -> torch.device:
    if isinstance(device, str | torch.device):
        return available_device(device)
    if device is not None and device < 0:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return available_device(torch.device("cuda", device or 0))
    if device is not None:
        logger.warning("device=%d is a GPU, and there is none: the pipeline runs on the CPU", device)
    return torch.device("cpu")
