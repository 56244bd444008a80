"""Question answering: find the part of a context that answers a question."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchgguf.pipelines.base import Pipeline


@dataclass(frozen=True)
class Part:
    """A part of a context as the model reads it.

    Attributes:
        pair: the index of the question.
        tokens: the tokens of the question, then those of the part.
        asked: the number of tokens of the question.
        offsets: the first character and the one after the last, for each token of the part.
    """

    pair: int
    tokens: list[int]
    asked: int
    offsets: list[tuple[int, int]]


class QuestionAnsweringPipeline(Pipeline):
    """Return `{"score", "start", "end", "answer"}` for each `{"question": ..., "context": ...}`.

    The answer is characters `start` to `end` of the context. Its score is the product of two probabilities
    within the context: that the answer starts there, and that it ends there. Contexts longer than the context
    length of the model are read in parts.

    Options: `top_k` above 1 returns a list of so many answers; `max_answer_len` is the longest answer in
    tokens; `max_seq_len` is the longest part with its question in tokens, by default the context length of
    the model; `doc_stride` is the number of tokens that neighbouring parts share. With
    `handle_impossible_answer` the empty answer is a candidate too. A model that was trained on questions
    without answers predicts the very first token for it.
    """

    task = "question-answering"

    def __call__(
        self, inputs: Any = None, *, question: Any = None, context: Any = None, **options: Any
    ) -> Any:
        """Answer questions, passed as `question=` and `context=` or as mappings with these keys."""
        if question is not None or context is not None:
            if inputs is not None or question is None or context is None:
                raise ValueError("pass both question= and context=, or mappings with these keys")
            if isinstance(question, str):
                inputs = {"question": question, "context": context}
            else:
                contexts = [context] * len(question) if isinstance(context, str) else context
                pairs = zip(question, contexts, strict=True)
                inputs = [{"question": asked, "context": about} for asked, about in pairs]
        return super().__call__(inputs, **options)

    def is_single(self, inputs: Any) -> bool:
        """Return whether this is one question, not several."""
        return isinstance(inputs, Mapping)

    def answer(
        self,
        inputs: list[Any],
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool = False,
    ) -> list[Any]:
        """Answer each question; a batch has as many parts as there are questions."""
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        limits = [length for length in (max_seq_len, self.context_length) if length is not None]
        texts = [_texts(pair) for pair in inputs]
        parts = [part for i in range(len(texts)) for part in self._parts(i, *texts[i], limits, doc_stride)]
        found: list[list[dict[str, Any]]] = [[] for _ in inputs]
        nothing = [1.0] * len(inputs)
        for part, begins, ends in self._logits(parts, len(inputs)):
            places = torch.arange(part.asked, len(part.tokens))
            if handle_impossible_answer:
                places = torch.cat((torch.zeros(1, dtype=torch.long), places))
            begins, ends = begins[places].softmax(0), ends[places].softmax(0)
            if handle_impossible_answer:
                nothing[part.pair] = min(nothing[part.pair], (begins[0] * ends[0]).item())
                begins, ends = begins[1:], ends[1:]
            for score, i, j in _best_spans(begins, ends, max_answer_len, top_k):
                start, end = part.offsets[i][0], part.offsets[j][1]
                found[part.pair].append(_answer(score, texts[part.pair][1], int(start), int(end)))
        if handle_impossible_answer:
            for candidates, score in zip(found, nothing, strict=True):
                candidates.append({"score": score, "start": 0, "end": 0, "answer": ""})
        answers = [_best(candidates)[:top_k] for candidates in found]
        return answers if top_k > 1 else [best for (best,) in answers]

    def _parts(
        self, pair: int, question: str, context: str, limits: list[int], doc_stride: int | None
    ) -> Iterator[Part]:
        """Cut a context so that each part fits the limits together with the question."""
        asked = list(self.tokenizer(question).input_ids)
        told = self.tokenizer(context, return_offsets_mapping=True, add_special_tokens=False)
        tokens, offsets = list(told.input_ids), list(told.offset_mapping)
        room = min((limit - len(asked) for limit in limits), default=max(1, len(tokens)))
        if room < 1:
            raise ValueError(
                f"the question has {len(asked)} tokens, but question and context must fit in {min(limits)}"
            )
        shared = min(128, room // 2) if doc_stride is None else doc_stride
        if not 0 <= shared < room:
            raise ValueError(f"doc_stride must be 0 to {room - 1}, less than a part has tokens, got {shared}")
        for start in range(0, max(1, len(tokens) - shared), room - shared):
            part = slice(start, start + room)
            yield Part(pair, asked + tokens[part], len(asked), offsets[part])

    def _logits(self, parts: list[Part], size: int) -> Iterator[tuple[Part, Tensor, Tensor]]:
        """Yield each part with the logits `(tokens,)` that an answer starts, and ends, at its tokens."""
        for first in range(0, len(parts), size):
            chunk = parts[first : first + size]
            output = self.model(**self.batch([part.tokens for part in chunk]), use_cache=False)
            yield from zip(
                chunk, output.start_logits.float().cpu(), output.end_logits.float().cpu(), strict=True
            )


def _answer(score: float, context: str, start: int, end: int) -> dict[str, Any]:
    answer = context[start:end]
    start += len(answer) - len(answer.lstrip())
    answer = answer.strip()
    return {"score": score, "start": start, "end": start + len(answer), "answer": answer}


def _best(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by score, and keep the best of answers that several parts share."""
    best: dict[tuple[int, int], dict[str, Any]] = {}
    for found in sorted(candidates, key=lambda found: -found["score"]):
        best.setdefault((found["start"], found["end"]), found)
    return list(best.values())


def _best_spans(begins: Tensor, ends: Tensor, longest: int, top_k: int) -> list[tuple[float, int, int]]:
    """Return score, first and last token of the best spans of at most `longest` tokens."""
    scores = begins[:, None] * ends
    allowed = torch.ones_like(scores, dtype=torch.bool).triu().tril(longest - 1)
    values, places = scores.masked_fill(~allowed, -1).flatten().topk(min(top_k, scores.numel()))
    found = zip(values.tolist(), places.tolist(), strict=True)
    return [(score, *divmod(place, len(ends))) for score, place in found if score >= 0]


def _texts(pair: Any) -> tuple[str, str]:
    if isinstance(pair, Mapping) and isinstance(pair.get("question"), str):
        context = pair.get("context")
        if isinstance(context, str) and context.strip():
            return pair["question"], context
    raise ValueError(
        'a question must be {"question": ..., "context": ...}, both texts and the context not empty'
    )
