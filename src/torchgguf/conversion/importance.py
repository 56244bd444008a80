"""Importance matrices from a model's own forward pass: what goes into its matrices, squared and summed.

Texts are cut into chunks, BOS is put in the place of each chunk's first token, and perplexity is that of each
chunk's second half, all as llama-imatrix does it (llama.cpp: tools/imatrix/imatrix.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Conv1D, QuantizedLinear
from torchgguf.nn.experts import MATRICES, ObservedExperts
from torchgguf.nn.slots import slots
from torchgguf.packing.column_statistics import CHUNK_SIZE, Activations
from torchgguf.packing.imatrix import ImportanceMatrix
from torchgguf.tokenization import Tokenizer

_MATRICES = (nn.Linear, Conv1D, QuantizedLinear)
_HEAD = "output.weight"


def collect_importance(
    model: PreTrainedModel,
    tokens: Sequence[int],
    *,
    chunk_size: int = CHUNK_SIZE,
    bos_token_id: int | None = None,
    max_chunks: int | None = None,
    batch_size: int = 1,
    process_output: bool = False,
    datasets: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> ImportanceMatrix:
    """Let a model read a text, and return how much errors in each column of its matrices matter.

    Args:
        model: packed or not, on any device.
        tokens: of the text, as from `encode_texts`.
        chunk_size: tokens that are read at once and know nothing of those before; a rest is left out.
        bos_token_id: what to put in the place of each chunk's first token, as from `chunk_start_token`.
        max_chunks: read no more than these.
        batch_size: chunks to read side by side.
        process_output: also collect for the head, unless its weights are the embedding's.
        datasets: what the matrix is to name as its source.
        progress: told `(done, total)` chunks.

    Raises:
        ValueError: the text is shorter than a chunk, a chunk is longer than what the model reads, the model
            is being trained, or activations are not finite; the message names the tensor that they go into.
    """
    for name, number in (("chunk_size", chunk_size), ("max_chunks", max_chunks), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
    chunks = cut(tokens, chunk_size, bos_token_id)[:max_chunks]
    with ImportanceCollector(model, process_output=process_output, perplexity=False) as collector:
        for batch in chunks.split(batch_size):
            collector.read(batch)
            if progress is not None:
                progress(collector.chunks, len(chunks))
    return collector.matrix(datasets)


def encode_texts(tokenizer: Tokenizer, texts: Iterable[str], parse_special: bool = False) -> list[int]:
    """Return the tokens of texts, one after the other, each with what the tokenizer puts around a text.

    `parse_special`: take what is spelled like a special token for one; else it is text like any other.
    """
    encoded = (tokenizer(text, split_special_tokens=not parse_special) for text in texts)
    return [token for encoding in encoded for token in encoding["input_ids"]]


def chunk_start_token(tokenizer: Tokenizer) -> int | None:
    """Return the token that each chunk begins with: BOS if that is how texts begin, else None."""
    bos = tokenizer.bos_token_id
    return bos if tokenizer("")["input_ids"][:1] == [bos] else None


def cut(tokens: Sequence[int], chunk_size: int, bos_token_id: int | None) -> Tensor:
    """Return the chunks of a text, `(chunks, chunk_size)`; arguments are those of `collect_importance`.

    Raises:
        ValueError: there is not a single one.
    """
    if (count := len(tokens) // chunk_size) == 0:
        raise ValueError(
            f"a chunk takes {chunk_size} tokens, and the text has {len(tokens)}: take more text, or smaller "
            "chunks"
        )
    chunks = torch.tensor(tokens[: count * chunk_size]).view(count, chunk_size)
    if bos_token_id is not None:
        chunks[:, 0] = bos_token_id
    return chunks


class ImportanceCollector:
    """Sums up what goes into a model's matrices while it reads, as a context manager.

    Args:
        model: in evaluation mode; nobody else may change its layers meanwhile, and what other threads run is
            not counted.
        process_output: also collect for the head, unless its weights are the embedding's.
        perplexity: whether to score the chunks, for which the model needs a head.

    Attributes:
        chunks: how many have been read.
        chunk_size: tokens of each.

    Raises:
        ValueError: the model is in training mode, in which dropout would be counted too.
    """

    def __init__(
        self, model: PreTrainedModel, *, process_output: bool = False, perplexity: bool = True
    ) -> None:
        if model.training:
            raise ValueError("the model is in training mode: call model.eval() before")
        self.chunks, self.chunk_size = 0, CHUNK_SIZE
        self._model = model
        self._scores, self._needs_all = perplexity, process_output
        self._watched = list(_watched(model, process_output))
        self._inputs = [inputs for _, of_layer in self._watched for inputs in of_layer]
        self._scored, self._loss, self._squares = 0, 0.0, 0.0  # tokens; their losses; the squares of these
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        thread = get_ident()
        for layer, inputs in self._watched:
            if isinstance(layer, ObservedExperts):
                layer.observer = partial(_see_expert, thread, inputs)
                self._hooks.callback(setattr, layer, "observer", None)
            else:
                hook = layer.register_forward_pre_hook(partial(_see, thread, inputs))
                self._hooks.callback(hook.remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()

    @torch.inference_mode()
    def read(self, chunks: Tensor) -> None:
        """Let the model read chunks `(B, chunk_size)`, all of the same size, each by itself.

        Raises:
            ValueError: the model cannot read so much at once, or activations are not finite; the message
                names the tensor that they go into.
        """
        count, size = chunks.shape
        # Bloom states none: its positions go on for ever.
        limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and size > limit:
            raise ValueError(f"chunks have {size} tokens, but the model reads {limit} at most")
        for inputs in self._inputs:
            inputs.forget()
        ids = chunks.to(self._model.device)
        if self._scores or self._needs_all:
            self._read_to_the_head(ids)
        else:
            self._model.base_model(ids, use_cache=False)
        for inputs in self._inputs:
            inputs.settle()
        self.chunks, self.chunk_size = self.chunks + count, size

    def _read_to_the_head(self, ids: Tensor) -> None:
        """Read, and score what has half a chunk before it."""
        first = ids.shape[1] // 2
        kept = ids.shape[1] - first
        output = self._model(ids, use_cache=False, logits_to_keep=0 if self._needs_all else kept)
        if not self._scores:
            return
        for logits, targets in zip(output.logits[:, -kept:], ids[:, first + 1 :], strict=True):
            losses = F.cross_entropy(logits[:-1].float(), targets, reduction="none").cpu().double()
            self._scored += len(losses)
            self._loss += float(losses.sum())
            self._squares += float(losses.square().sum())

    @property
    def perplexity(self) -> tuple[float, float]:
        """That of the second halves of all chunks, and its standard error; NaN before anything is scored."""
        if self._scored < 2:
            return math.nan, math.nan
        mean = self._loss / self._scored
        variance = max(self._squares / self._scored - mean**2, 0.0)
        perplexity = float(torch.tensor(mean, dtype=torch.float64).exp())  # infinite where math.exp refuses
        return perplexity, perplexity * math.sqrt(variance / (self._scored - 1))

    def matrix(self, datasets: Sequence[str] = ()) -> ImportanceMatrix:
        """Return what has been collected so far; `datasets` are to be named as its source."""
        activations = {
            name: Activations(inputs.sums.float(), inputs.counts.clone())
            for inputs in self._inputs
            if inputs.sums is not None
            for name in inputs.names
        }
        return ImportanceMatrix(activations, list(datasets), self.chunks, self.chunk_size)


class _Inputs:
    """What the tensors `names` are multiplied by, all the same: squares summed, for each expert by itself."""

    def __init__(self, names: Sequence[str], experts: int = 1) -> None:
        self.names = names
        self.counts = torch.zeros(experts, dtype=torch.int64)
        self.sums: Tensor | None = None  # float64 (experts, columns)
        self._seen: list[tuple[int, int, Tensor]] = []  # not settled: expert, rows, sums (columns,)

    def see(self, rows: Tensor, expert: int = 0) -> None:
        """Note rows `(..., columns)`."""
        rows = rows.flatten(0, -2).float()
        self._seen.append((expert, len(rows), rows.square().sum(0)))

    def forget(self) -> None:
        """Take back what was noted."""
        self._seen.clear()

    def settle(self) -> None:
        """Count what was noted. Single precision does for the rows of one pass, but not for a whole text."""
        if not self._seen:
            return
        experts, counts, sums = zip(*self._seen, strict=True)
        fresh = torch.stack(sums).cpu().double()
        if not bool(fresh.isfinite().all()):
            raise ValueError(f"activations that go into {self.names[0]} are infinite or not a number")
        if self.sums is None:
            self.sums = fresh.new_zeros(len(self.counts), fresh.shape[1])
        index = torch.tensor(experts)
        self.sums.index_add_(0, index, fresh)
        self.counts.index_add_(0, index, torch.tensor(counts))
        self.forget()


def _watched(model: PreTrainedModel, process_output: bool) -> Iterator[tuple[nn.Module, list[_Inputs]]]:
    """Find the layers with matrices in blocks, and the head if it is asked for and a tensor of its own."""
    for path, layer in model.named_modules():
        if isinstance(layer, ObservedExperts):
            names = [_gguf_name(model, f"{path}.{matrix}") for matrix in MATRICES]
            experts = next(iter(slots(layer))).shape[0]
            yield layer, [_Inputs([*filter(None, part)], experts) for part in (names[:-1], names[-1:])]
        elif isinstance(layer, _MATRICES) and (name := _gguf_name(model, path)) is not None:
            is_head = name == _HEAD and process_output and layer is not model.tied_head
            if name.startswith("blk.") or is_head:
                yield layer, [_Inputs([name])]


def _gguf_name(model: PreTrainedModel, path: str) -> str | None:
    """Return the name of a matrix in GGUF files, None if they have no place for it."""
    target = model.architecture.weights.to_gguf(model.base_name(f"{path}.weight"))
    return None if target is None else target[0]


def _see(thread: int, inputs: list[_Inputs], layer: nn.Module, arguments: tuple[Any, ...]) -> None:
    if get_ident() == thread:
        inputs[0].see(arguments[0])


def _see_expert(thread: int, inputs: list[_Inputs], expert: int, *rows: Tensor) -> None:
    if get_ident() == thread:
        for each, its_rows in zip(inputs, rows, strict=True):
            each.see(its_rows, expert)
