"""Join labelled tokens to words, and neighbours with the same label to entities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledSpan:
    """Consecutive tokens of a text, with the probabilities of their labels.

    Attributes:
        token_ids: the tokens.
        start: the first character of the text in it.
        end: the character after its last one.
        scores: the probabilities of all labels, `(labels,)`.
        continues: whether it continues the word of the span before.
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


# How to combine the scores of tokens to those of a word; None: do not join tokens to words.
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
    """Join neighbours with the same label; a label `B-...` begins a new entity, `I-...` continues one.

    Args:
        spans: tokens or words of a text, in order.
        labels: label names by index.
        decode: returns the text of tokens.

    Returns:
        One dict for each entity: `entity_group`, `score`, `word`, `start` and `end`.
    """
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
    """Split a label into `B` or `I`, and its tag; a label without either counts as `I`."""
    return (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("I", label)


def _token_ids(spans: list[LabelledSpan]) -> list[int]:
    return [token_id for span in spans for token_id in span.token_ids]
