"""`Pipeline`, the base class of all tasks: one input or many, in batches, on a device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf.logging import bar_disabled
from torchgguf.models import PreTrainedModel
from torchgguf.tokenization import Tokenizer


class Pipeline:
    """A callable that answers one input, a list of inputs, or any iterable of inputs.

    For one input it returns one answer, for a list it returns a list. For any other iterable, such as a
    generator, it returns an iterator that reads inputs only as answers are requested, so that neither inputs
    nor answers need to fit in memory.

    Args:
        model: a model with the head for the task, on the device where it shall run.
        tokenizer: the tokenizer of the model.
        batch_size: the number of inputs in a batch; it does not change the answers.
        options: options of the task, which replace its defaults; each call may replace them again.

    Raises:
        TypeError: the task has no such option.
        ValueError: the input is invalid for the task.
    """

    task: ClassVar[str]
    #: Answer a batch of inputs, in their order; the arguments are the options of the task.
    answer: Callable[..., list[Any]]
    model: Any

    def __init__(
        self, model: PreTrainedModel, tokenizer: Tokenizer, batch_size: int = 1, **options: Any
    ) -> None:
        self._check_options(options)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = _checked_size(batch_size)
        self.options = options

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the model computes."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context_length(self) -> int | None:
        """The longest input of the model in tokens; None if it is unlimited, as with Bloom's ALiBi."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Save the model and its tokenizer to a folder, from which `pipeline` can load them."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        """Answer one input or several; the options are those of the task."""
        size = self.batch_size if batch_size is None else _checked_size(batch_size)
        self._check_options(options)
        options = self.merged(options)
        if self.is_single(inputs):
            return self.single(next(self._stream(iter([inputs]), 1, options)), options)
        try:
            if isinstance(inputs, Mapping | bytes):  # iterating over these does not yield texts
                raise TypeError
            source = iter(inputs)  # also accepts datasets that have only indices
        except TypeError:
            raise ValueError(f"{self.task} requires texts, got {inputs!r:.80}") from None
        answers = self._stream(source, size, options)
        if not isinstance(inputs, Sequence):
            return answers
        # The bar appears only after a second, and only on a terminal.
        return list(tqdm(answers, self.task, total=len(inputs), delay=1, leave=False, disable=bar_disabled()))

    def _check_options(self, options: Mapping[str, Any]) -> None:
        try:
            inspect.signature(self.answer).bind([], **options)
        except TypeError as error:
            raise TypeError(f"{self.task}: {error}") from None

    def merged(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a call, completed by those of the pipeline."""
        return {**self.options, **options}

    def _stream(self, source: Iterator[Any], size: int, options: dict[str, Any]) -> Iterator[Any]:
        while batch := list(islice(source, size)):
            with torch.inference_mode():  # not around the yield, where it would affect the code of the caller
                answers = self.answer(batch, **options)
            yield from answers

    def is_single(self, inputs: Any) -> bool:
        """Return whether this is one input, not several."""
        return isinstance(inputs, str)

    def single(self, answer: Any, options: Mapping[str, Any]) -> Any:
        """Return the answer to a single input, in the same form as in transformers."""
        return answer

    def text(self, value: Any) -> str:
        """Return an input if it is a text; otherwise raise `ValueError`."""
        if not isinstance(value, str):
            raise ValueError(f"{self.task} requires texts, got {value!r:.80}")
        return value

    def batch(self, rows: Sequence[Sequence[int]], side: str = "right") -> dict[str, Tensor]:
        """Make a batch of rows with padding on one side.

        Padding is masked. If the tokenizer has no padding token, another token is used.

        Args:
            rows: the tokens of each row.
            side: where to pad, `"left"` or `"right"`.

        Returns:
            `input_ids` and `attention_mask`, both int64 `(len(rows), longest)`.

        Raises:
            ValueError: a row has no tokens.
        """
        if not all(rows):
            raise ValueError(f"{self.task}: the text is empty")
        tokenizer = self.tokenizer
        fill = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        longest = max(map(len, rows))
        tokens, mask = [], []
        for row in rows:
            padding = [fill] * (longest - len(row))
            tokens.append([*padding, *row] if side == "left" else [*row, *padding])
            seen = [1] * len(row)
            mask.append([0] * len(padding) + seen if side == "left" else seen + [0] * len(padding))
        return {
            "input_ids": torch.tensor(tokens, device=self.device),
            "attention_mask": torch.tensor(mask, device=self.device),
        }


def _checked_size(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size
