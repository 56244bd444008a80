"""From labels of tokens to entities: tokens of a word agree, and neighbours with the same label join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledSpan:
    """Tokens that are characters `start` to `end` of the text.

    `scores` are the probabilities of all labels; `continues` says that they go on a word begun before.
    """

    token_ids: list[int]
    start: int
    end: int
    scores: Tensor
    continues: bool = False


def _first(tokens: list[LabelledSpan]) -> Tensor:
    return tokens[0].scores


def _most_certain(tokens: list[LabelledSpan]) -> Tensor:
    return max(tokens, key=lambda token: token.scores.max().item()).scores


def _average(tokens: list[LabelledSpan]) -> Tensor:
    return torch.stack([token.scores for token in tokens]).mean(0)


# How the scores of a word come from those of its tokens; None: words play no part.
WORD_SCORES: dict[str, Callable[[list[LabelledSpan]], Tensor] | None] = {
    "none": None,
    "simple": None,
    "first": _first,
    "max": _most_certain,
    "average": _average,
}


def words(tokens: list[LabelledSpan], strategy: str) -> list[LabelledSpan]:
    """Join the tokens of each word, by a strategy in `WORD_SCORES`."""
    combine = WORD_SCORES[strategy]
    if combine is None:
        return tokens
    groups: list[list[LabelledSpan]] = []
    for token in tokens:
        if groups and token.continues:
            groups[-1].append(token)
        else:
            groups.append([token])
    return [
        LabelledSpan(_token_ids(group), group[0].start, group[-1].end, combine(group)) for group in groups
    ]


def entities(
    spans: list[LabelledSpan], labels: dict[int, str], decode: Callable[[list[int]], str]
) -> list[dict[str, Any]]:
    """Join neighbours that are labelled alike; a label `B-...` begins a new entity, `I-...` goes on."""
    groups: list[tuple[str, list[LabelledSpan]]] = []
    for span in spans:
        prefix, tag = _split(labels[int(span.scores.argmax())])
        if groups and groups[-1][0] == tag and prefix != "B":
            groups[-1][1].append(span)
        else:
            groups.append((tag, [span]))
    return [
        {
            "entity_group": tag,
            "score": sum(span.scores.max().item() for span in group) / len(group),
            "word": decode(_token_ids(group)),
            "start": group[0].start,
            "end": group[-1].end,
        }
        for tag, group in groups
    ]


def _split(label: str) -> tuple[str, str]:
    """Take a label apart into `B` or `I`, which is what a label without either means, and its tag."""
    return (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("I", label)


def _token_ids(spans: list[LabelledSpan]) -> list[int]:
    return [token_id for span in spans for token_id in span.token_ids]
