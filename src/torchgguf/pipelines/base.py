"""`Pipeline`: what all tasks have in common: one input or many, in batches, on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
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
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.options = options

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        """Answer; the options are those of the task."""
        size = batch_size or self.batch_size
        options = {**self.options, **options}
        if self.is_single(inputs):
            return self.single(next(self._stream([inputs], 1, options)), options)
        if not isinstance(inputs, Iterable) or isinstance(inputs, Mapping):
            raise ValueError(f"{self.task} takes texts, not a {type(inputs).__name__}")
        answers = self._stream(inputs, size, options)
        if not isinstance(inputs, Sequence):
            return answers
        # The bar shows itself only where there is something to wait for, and someone to see it.
        return list(tqdm(answers, self.task, total=len(inputs), delay=1, leave=False, disable=None))

    def _stream(self, inputs: Iterable[Any], size: int, options: dict[str, Any]) -> Iterator[Any]:
        source = iter(inputs)
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

    def batch(self, rows: Sequence[Sequence[int]], side: str = "right") -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask`, both `(len(rows), longest)`, padded on one side.

        Padding is masked, so any token will do where the tokenizer names none.
        """
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
