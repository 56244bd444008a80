"""`pipeline`: a model, its tokenizer and a task, put together by their names."""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any, NamedTuple

import torch

from torchgguf.models import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from torchgguf.pipelines.base import Pipeline
from torchgguf.pipelines.feature_extraction import FeatureExtractionPipeline
from torchgguf.pipelines.question_answering import QuestionAnsweringPipeline
from torchgguf.pipelines.text_classification import TextClassificationPipeline
from torchgguf.pipelines.text_generation import TextGenerationPipeline
from torchgguf.pipelines.token_classification import TokenClassificationPipeline
from torchgguf.tokenization import AutoTokenizer, Tokenizer

logger = logging.getLogger(__name__)


class Task(NamedTuple):
    """What does a task, and what loads a model for it; `heads`: how the names of such models end."""

    pipeline: type[Pipeline]
    auto: type[AutoModel]
    heads: tuple[str, ...]


TASKS: dict[str, Task] = {
    "text-generation": Task(TextGenerationPipeline, AutoModelForCausalLM, ("ForCausalLM", "LMHeadModel")),
    "text-classification": Task(
        TextClassificationPipeline, AutoModelForSequenceClassification, ("ForSequenceClassification",)
    ),
    "token-classification": Task(
        TokenClassificationPipeline, AutoModelForTokenClassification, ("ForTokenClassification",)
    ),
    "question-answering": Task(
        QuestionAnsweringPipeline, AutoModelForQuestionAnswering, ("ForQuestionAnswering",)
    ),
    "feature-extraction": Task(FeatureExtractionPipeline, AutoModel, ("Model",)),
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


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
        options: of the task, to hold for every call.

    Returns:
        The task's `Pipeline`.

    Raises:
        ValueError: an unknown task, or arguments that contradict each other.
    """
    if model is None:
        raise ValueError("name a model: pipeline(task, model=...), a file, a folder or a repository")
    if device is not None and device_map is not None:
        raise ValueError("give device or device_map, not both")
    source = {"gguf_file": gguf_file, "revision": revision, "token": token}
    stated: dict[str, Any] = {name: value for name, value in source.items() if value is not None}
    row = TASKS[_task_name(task, model, stated)]
    if not isinstance(model, PreTrainedModel):
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(model, **stated)
        loading = {"config": config, "device_map": device_map}
        more = {name: value for name, value in loading.items() if value is not None} | (model_kwargs or {})
        model = row.auto.from_pretrained(
            model, dtype=dtype if torch_dtype is None else torch_dtype, **stated, **more
        )
    if tokenizer is None:
        raise ValueError("a model that is loaded already does not name its tokenizer: give tokenizer=")
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, **stated)
    assert isinstance(model, PreTrainedModel)
    if device_map is None and getattr(model, "hf_device_map", None) is None:
        model.to(_device(device))
    return row.pipeline(model, tokenizer, batch_size, **options)


def _task_name(task: str | None, model: Any, source: dict[str, Any]) -> str:
    if task is not None:
        name = ALIASES.get(task, task)
        if name not in TASKS:
            raise ValueError(f"task {task!r} is unknown; these are: {', '.join((*TASKS, *ALIASES))}")
        return name
    if isinstance(model, PreTrainedModel):
        classes = [type(model).__name__]
    else:
        classes = AutoConfig.from_pretrained(model, **source).architectures or ["ForCausalLM"]
    for name, row in TASKS.items():
        if classes[0].endswith(row.heads):
            return name
    raise ValueError(f"{classes[0]} does not say which task it is for; name one of {', '.join(TASKS)}")


def _device(device: int | str | torch.device | None) -> torch.device:
    if isinstance(device, str | torch.device):
        return torch.device(device)
    if device == -1:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", device or 0)
    if device is not None:
        logger.warning("device=%d is a GPU, and there is none: the pipeline runs on the CPU", device)
    return torch.device("cpu")
