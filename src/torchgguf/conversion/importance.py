"""Collect importance matrices: run a model on texts, and sum the squares of the inputs of its matrices.

Texts are cut into chunks, BOS replaces the first token of each chunk, and perplexity is that of the second
half of each chunk, as in llama-imatrix (llama.cpp: tools/imatrix/imatrix.cpp).
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
from torchgguf.nn import Conv1D, LatentProjection, QuantizedLatentProjection, QuantizedLinear
from torchgguf.nn.experts import ObservedExperts
from torchgguf.nn.grouped_rows import QuantizedGroupedRowsLinear
from torchgguf.nn.slots import slots
from torchgguf.nn.stacked import QuantizedStackedLinear
from torchgguf.nn.tiled import ReadsHeads
from torchgguf.packing.column_statistics import CHUNK_SIZE, Activations
from torchgguf.packing.imatrix import ImportanceMatrix
from torchgguf.tokenization import Tokenizer

_MATRICES = (nn.Linear, Conv1D, QuantizedLinear, QuantizedStackedLinear, QuantizedGroupedRowsLinear)
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
    """Run a model on a text, and return the importance of each column of its matrices.

    Args:
        model: the model, packed or not, on any device, in evaluation mode.
        tokens: the tokens of the text, as from `encode_texts`.
        chunk_size: the length of a chunk in tokens. Chunks are independent; the rest of the text is ignored.
        bos_token_id: replaces the first token of each chunk, as from `chunk_start_token`.
        max_chunks: the largest number of chunks to read; by default all.
        batch_size: the number of chunks in a batch.
        process_output: also collect for the head, unless it is tied to the embeddings.
        datasets: names of the texts, which the matrix stores.
        progress: is called with `(done, total)` chunks.

    Returns:
        The importance matrix.

    Raises:
        ValueError: the text is shorter than a chunk, a chunk is longer than the context of the model, the
            model is in training mode, or activations are not finite (the message names the tensor).
    """
    for name, number in (("chunk_size", chunk_size), ("max_chunks", max_chunks), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    chunks = cut(tokens, chunk_size, bos_token_id)[:max_chunks]
    with ImportanceCollector(model, process_output=process_output, perplexity=False) as collector:
        for batch in chunks.split(batch_size):
            collector.read(batch)
            if progress is not None:
                progress(collector.chunks, len(chunks))
    return collector.matrix(datasets)


def encode_texts(tokenizer: Tokenizer, texts: Iterable[str], parse_special: bool = False) -> list[int]:
    """Return the tokens of several texts in one list, each with the special tokens around it.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the texts.
        parse_special: whether text that is spelled like a special token becomes that token.
    """
    encoded = (tokenizer(text, split_special_tokens=not parse_special) for text in texts)
    return [token for encoding in encoded for token in encoding["input_ids"]]


def chunk_start_token(tokenizer: Tokenizer) -> int | None:
    """Return the first token of each chunk: BOS if the tokenizer begins texts with it, else None."""
    bos = tokenizer.bos_token_id
    return bos if tokenizer("")["input_ids"][:1] == [bos] else None


def cut(tokens: Sequence[int], chunk_size: int, bos_token_id: int | None) -> Tensor:
    """Cut a text into chunks; arguments are those of `collect_importance`.

    Returns:
        int64 `(chunks, chunk_size)`.

    Raises:
        ValueError: the text is shorter than a chunk.
    """
    if (count := len(tokens) // chunk_size) == 0:
        raise ValueError(
            f"a chunk has {chunk_size} tokens, but the text has only {len(tokens)}: use a longer text or "
            "smaller chunks"
        )
    chunks = torch.tensor(tokens[: count * chunk_size]).view(count, chunk_size)
    if bos_token_id is not None:
        chunks[:, 0] = bos_token_id
    return chunks


class ImportanceCollector:
    """A context manager that sums the squared inputs of a model's matrices while the model reads chunks.

    Args:
        model: the model in evaluation mode. Its layers must not change meanwhile. Forward passes in other
            threads do not count.
        process_output: also collect for the head, unless it is tied to the embeddings.
        perplexity: whether to compute the perplexity of the chunks, which requires a head.

    Attributes:
        chunks: the number of chunks that were read.
        chunk_size: the length of a chunk in tokens.

    Raises:
        ValueError: the model is in training mode, where dropout would distort the sums.
    """

    def __init__(
        self, model: PreTrainedModel, *, process_output: bool = False, perplexity: bool = True
    ) -> None:
        if model.training:
            raise ValueError("the model is in training mode: call model.eval() first")
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
            if isinstance(layer, LatentProjection | QuantizedLatentProjection):
                hook = layer.register_forward_pre_hook(partial(_see_heads, thread, inputs))
                self._hooks.callback(hook.remove)
            elif isinstance(layer, ObservedExperts):
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
        """Run the model on chunks, each independent of the others.

        Args:
            chunks: int64 `(B, chunk_size)`.

        Raises:
            ValueError: chunks are longer than the context of the model, or activations are not finite (the
                message names the tensor).
        """
        count, size = chunks.shape
        # Bloom has no limit: ALiBi positions are unbounded.
        limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        if limit is not None and size > limit:
            raise ValueError(f"chunks have {size} tokens, but the context of the model is {limit}")
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
        """Run the whole model, and compute the losses of the second half of each chunk."""
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
        """The perplexity of the second halves of all chunks, and its standard error; NaN before the first."""
        if self._scored < 2:
            return math.nan, math.nan
        mean = self._loss / self._scored
        variance = max(self._squares / self._scored - mean**2, 0.0)
        perplexity = float(
            torch.tensor(mean, dtype=torch.float64).exp()
        )  # infinity where math.exp raises an error
        return perplexity, perplexity * math.sqrt(variance / (self._scored - 1))

    def matrix(self, datasets: Sequence[str] = ()) -> ImportanceMatrix:
        """Return the importance matrix of the chunks so far, which stores the names `datasets`."""
        activations = {
            name: Activations(inputs.sums.float(), inputs.counts.clone())
            for inputs in self._inputs
            if inputs.sums is not None
            for name in inputs.names
        }
        return ImportanceMatrix(activations, list(datasets), self.chunks, self.chunk_size)


class _Inputs:
    """The sums of squared inputs of the tensors `names`, which share them, separate for each expert."""

    def __init__(self, names: Sequence[str], experts: int = 1) -> None:
        self.names = names
        self.counts = torch.zeros(experts, dtype=torch.int64)
        self.sums: Tensor | None = None  # float64 (experts, columns)
        self._seen: list[tuple[int, int, Tensor]] = []  # not added yet: expert, rows, sums (columns,)

    def see(self, rows: Tensor, expert: int = 0) -> None:
        """Record rows `(..., columns)`; `settle` adds them."""
        rows = rows.flatten(0, -2).float()
        self._seen.append((expert, len(rows), rows.square().sum(0)))

    def forget(self) -> None:
        """Discard the recorded rows."""
        self._seen.clear()

    def settle(self) -> None:
        """Add the recorded rows. Float32 is enough for the rows of one pass, but not for a whole text."""
        if not self._seen:
            return
        experts, counts, sums = zip(*self._seen, strict=True)
        fresh = torch.stack(sums).cpu().double()
        if not bool(fresh.isfinite().all()):
            raise ValueError(f"the activations for {self.names[0]} are infinite or not a number")
        if self.sums is None:
            self.sums = fresh.new_zeros(len(self.counts), fresh.shape[1])
        index = torch.tensor(experts)
        self.sums.index_add_(0, index, fresh)
        self.counts.index_add_(0, index, torch.tensor(counts))
        self.forget()


def _watched(model: PreTrainedModel, process_output: bool) -> Iterator[tuple[nn.Module, list[_Inputs]]]:
    """Find the matrices in the blocks, and the head if `process_output` is true and it is not tied."""
    for path, layer in model.named_modules():
        if isinstance(layer, ObservedExperts):
            names = [_gguf_name(model, f"{path}.{matrix}.weight") for matrix in layer.matrices]
            experts = next(iter(slots(layer))).shape[0]
            yield layer, [_Inputs([*filter(None, part)], experts) for part in (names[:-1], names[-1:])]
        elif isinstance(layer, LatentProjection | QuantizedLatentProjection):
            names = [_gguf_name(model, f"{path}.{matrix}.weight") for matrix in ("k", "v")]
            yield layer, [_Inputs([*filter(None, [name])]) for name in names]
        elif isinstance(layer, _MATRICES):
            of_slots = (_gguf_name(model, f"{path}.{slot.name}") for slot in slots(layer))
            matrices = [name for name in of_slots if name is not None and name.endswith(".weight")]
            is_head = matrices == [_HEAD] and process_output and layer is not model.tied_head
            if is_head or any(name.startswith("blk.") for name in matrices):
                yield layer, [_Inputs(matrices)]


def _gguf_name(model: PreTrainedModel, name: str) -> str | None:
    """Return the GGUF name of a tensor, or None if GGUF has no name for it."""
    target = model.architecture.weights.to_gguf(model.base_name(name), model.config)
    return None if target is None else target[0]


def _see(thread: int, inputs: list[_Inputs], layer: nn.Module, arguments: tuple[Any, ...]) -> None:
    if get_ident() == thread:
        rows = layer.in_file_order(arguments[0]) if isinstance(layer, ReadsHeads) else arguments[0]
        inputs[0].see(rows)


def _see_heads(thread: int, inputs: list[_Inputs], layer: nn.Module, arguments: tuple[Any, ...]) -> None:
    rows, to_latent = arguments
    if get_ident() == thread:
        # As llama-imatrix, which has one row of sums for all heads, and one count.
        inputs[0 if to_latent else 1].see(rows.transpose(1, 2).flatten(2))


def _see_expert(thread: int, inputs: list[_Inputs], expert: int, *rows: Tensor) -> None:
    if get_ident() == thread:
        for each, its_rows in zip(inputs, rows, strict=True):
            each.see(its_rows, expert)
