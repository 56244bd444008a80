"""`Pipeline`: what all tasks have in common: one input or many, in batches, on a device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf.models import PreTrainedModel
from torchgguf.tokenization import Tokenizer


class Pipeline:
    """Text in, answers out. Call it with one input, a list, or anything that yields inputs.

    One input gives one answer, a list a list. Any other iterable, such as a generator, gives an iterator that
    reads on as answers are taken, so that neither inputs nor answers need to fit in memory.

    Args:
        model: a model with the head for the task, where it is to run.
        tokenizer: the model's.
        batch_size: how many inputs the model sees at once; it changes no answer.
        options: of the task, in place of its defaults; each call may say them otherwise.

    Raises:
        TypeError: an option that the task does not know.
        ValueError: an input that the task cannot take.
    """

    task: ClassVar[str]
    #: Answers a batch of inputs, in their order, given the options of the task.
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
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def context_length(self) -> int | None:
        """How many tokens the model can read; None: any number, as with Bloom's ALiBi."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Write the model and its tokenizer to a folder, from which `pipeline` makes this again."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        """Answer; the options are those of the task."""
        size = self.batch_size if batch_size is None else _checked_size(batch_size)
        self._check_options(options)
        options = self.merged(options)
        if self.is_single(inputs):
            return self.single(next(self._stream(iter([inputs]), 1, options)), options)
        try:
            if isinstance(inputs, Mapping | bytes):  # which yield no texts
                raise TypeError
            source = iter(
                inputs
            )  # asked itself: datasets that only have indices can be iterated over as well
        except TypeError:
            raise ValueError(f"{self.task} takes texts, not {inputs!r:.80}") from None
        answers = self._stream(source, size, options)
        if not isinstance(inputs, Sequence):
            return answers
        # The bar shows itself only where there is something to wait for, and someone to see it.
        return list(tqdm(answers, self.task, total=len(inputs), delay=1, leave=False, disable=None))

    def _check_options(self, options: Mapping[str, Any]) -> None:
        try:
            inspect.signature(self.answer).bind([], **options)
        except TypeError as error:
            raise TypeError(f"{self.task}: {error}") from None

    def merged(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a call, and those of the pipeline where the call says nothing."""
        return {**self.options, **options}

    def _stream(self, source: Iterator[Any], size: int, options: dict[str, Any]) -> Iterator[Any]:
        while batch := list(islice(source, size)):
            with torch.inference_mode():  # not around the yield, where it would reach into others' code
                answers = self.answer(batch, **options)
            yield from answers

    def is_single(self, inputs: Any) -> bool:
        """Tell one input from several."""
        return isinstance(inputs, str)

    def single(self, answer: Any, options: Mapping[str, Any]) -> Any:
        """Return the answer to one input that was given by itself, in the form transformers gives it."""
        return answer

    def text(self, value: Any) -> str:
        """Return an input that must be a text; `ValueError` if it is none."""
        if not isinstance(value, str):
            raise ValueError(f"{self.task} takes texts, not {value!r:.80}")
        return value

    def batch(self, rows: Sequence[Sequence[int]], side: str = "right") -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, both `(len(rows), longest)`, padded on one side.

        Padding is masked, so any token will do where the tokenizer names none.

        Raises:
            ValueError: a row has no tokens.
        """
        if not all(rows):
            raise ValueError(f"{self.task}: there is nothing to read in an empty text")
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
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return batch_size
