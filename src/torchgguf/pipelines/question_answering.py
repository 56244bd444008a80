"""Question answering: the part of a context that answers a question."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchgguf.pipelines.base import Pipeline


class QuestionAnsweringPipeline(Pipeline):
    """`{"score", "start", "end", "answer"}` of each `{"question": ..., "context": ...}`.

    The answer is characters `start` to `end` of the context; its score the product of the probabilities that
    it starts and ends there, within the context. Contexts longer than the model can read are read in parts.

    Options: `top_k` gives a list of so many answers if above 1; `max_answer_len` in tokens; `max_seq_len` of
    a part with its question, by default what the model can read; `doc_stride`, how many tokens neighbouring
    parts share; `handle_impossible_answer` lets the empty answer compete, for which a model trained on
    questions without answers points at the very first token.
    """

    task = "question-answering"

    def __call__(
        self, inputs: Any = None, *, question: Any = None, context: Any = None, **options: Any
    ) -> Any:
        """Answer questions given as `question=` and `context=`, or as mappings with these keys."""
        if question is not None or context is not None:
            if inputs is not None or question is None or context is None:
                raise ValueError("give both question= and context=, or mappings with these keys")
            if isinstance(question, str):
                inputs = {"question": question, "context": context}
            else:
                contexts = [context] * len(question) if isinstance(context, str) else context
                pairs = zip(question, contexts, strict=True)
                inputs = [{"question": asked, "context": about} for asked, about in pairs]
        return super().__call__(inputs, **options)

    def is_single(self, inputs: Any) -> bool:
        """Tell one question from several."""
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
        """Answer one question after the other: its context may be a batch by itself."""
        for name, value in (("top_k", top_k), ("max_answer_len", max_answer_len)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        limit = min(max_seq_len or 1 << 30, self.model.config.max_position_embeddings)
        answers = []
        for pair in inputs:
            question, context = _texts(pair)
            candidates = self._candidates(
                question, context, limit, doc_stride, max_answer_len, top_k, handle_impossible_answer
            )
            best: dict[tuple[int, int], dict[str, Any]] = {}
            for found in sorted(candidates, key=lambda found: -found["score"]):
                best.setdefault((found["start"], found["end"]), found)
            chosen = list(best.values())[:top_k]
            answers.append(chosen if top_k > 1 else chosen[0])
        return answers

    def _candidates(
        self,
        question: str,
        context: str,
        limit: int,
        doc_stride: int | None,
        longest: int,
        top_k: int,
        or_nothing: bool,
    ) -> list[dict[str, Any]]:
        """Return the best answers of every part of the context, and the chance that there is none."""
        asked = self.tokenizer(question).input_ids
        told = self.tokenizer(context, return_offsets_mapping=True, add_special_tokens=False)
        room = limit - len(asked)
        if room < 1:
            raise ValueError(f"the question has {len(asked)} tokens, which leaves no room in {limit}")
        shared = min(128, room // 2) if doc_stride is None else doc_stride
        if not 0 <= shared < room:
            raise ValueError(f"doc_stride must be below the {room} tokens that a part has, not {shared}")
        tokens, offsets = told.input_ids, told.offset_mapping
        starts = range(0, max(1, len(tokens) - shared), room - shared)
        parts = [slice(start, start + room) for start in starts]
        inputs = self.batch([[*asked, *tokens[part]] for part in parts])
        output = self.model(**inputs, use_cache=False)
        found, none = [], 1.0
        for row, part in enumerate(parts):
            places = torch.arange(len(asked), len(asked) + len(tokens[part]))
            if or_nothing:
                places = torch.cat((torch.zeros(1, dtype=torch.long), places))
            begins, ends = (
                logits[row].float().cpu()[places].softmax(0)
                for logits in (output.start_logits, output.end_logits)
            )
            if or_nothing:
                none = min(none, (begins[0] * ends[0]).item())
                begins, ends = begins[1:], ends[1:]
            for score, i, j in _best_spans(begins, ends, longest, top_k):
                start, end = int(offsets[part][i][0]), int(offsets[part][j][1])
                answer = context[start:end]
                start += len(answer) - len(answer.lstrip())
                answer = answer.strip()
                found.append({"score": score, "start": start, "end": start + len(answer), "answer": answer})
        if or_nothing:
            found.append({"score": none, "start": 0, "end": 0, "answer": ""})
        return found


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
    raise ValueError('a question is {"question": ..., "context": ...}, both of them texts')
