"""`Wrapping`: what a tokenizer adds around a text, or around a text and its pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

# The layouts of two processors: texts as 0 and 1, tokens by name; then the segment of each part of a pair.
_FIXED: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], tuple[int, ...]]] = {
    "BertProcessing": (("cls", 0, "sep"), ("cls", 0, "sep", 1, "sep"), (0, 0, 0, 1, 1)),
    "RobertaProcessing": (("cls", 0, "sep"), ("cls", 0, "sep", "sep", 1, "sep"), (0, 0, 0, 0, 0, 0)),
}


@dataclass(frozen=True)
class Piece:
    """A text, its pair, or tokens that are added.

    Attributes:
        text: 0 for the text, 1 for its pair, None for added tokens.
        ids: the added tokens.
        segment: the `token_type_ids` of the piece.
    """

    text: int | None
    ids: tuple[int, ...] = ()
    segment: int = 0


@dataclass(frozen=True)
class Wrapping:
    """The layout of an encoding.

    Attributes:
        single: the pieces of the encoding of a text.
        pair: the pieces of the encoding of a text and its pair.
    """

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...]

    @classmethod
    def between(cls, before: tuple[int, ...], after: tuple[int, ...]) -> Wrapping:
        """Return the wrapping that puts each text between the same tokens, as BOS and EOS are."""
        parts = [
            tuple(
                piece
                for piece in (Piece(None, before, text), Piece(text, (), text), Piece(None, after, text))
                if piece.ids or piece.text is not None
            )
            for text in (0, 1)
        ]
        return cls(parts[0], parts[0] + parts[1])


def flags_of(
    wrapping: Wrapping, roles: Mapping[str, int], *, single_only: bool = False
) -> dict[str, bool] | None:
    """Return whether texts get "bos" and "eos", or None if the wrapping adds more or something else.

    Args:
        wrapping: what is added around texts.
        roles: the ids by role.
        single_only: compare single texts only.
    """
    for bos, eos in product((False, True), repeat=2):
        wanted = [roles[end] for end, adds in (("bos", bos), ("eos", eos)) if adds and end in roles]
        if len(wanted) == bos + eos:
            other = Wrapping.between((wanted[0],) if bos else (), (wanted[-1],) if eos else ())
            if other == wrapping or (single_only and other.single == wrapping.single):
                return {"bos": bos, "eos": eos}
    return None


def read_wrapping(processor: Mapping[str, Any] | None) -> Wrapping | None:
    """Return what the `post_processor` of a tokenizer.json adds around texts, None if nothing.

    It also corrects offsets, which is left to the library.

    Raises:
        KeyError, TypeError, ValueError: the processor is invalid.
    """
    for one in pipeline_steps(processor, "processors"):
        kind = one["type"]
        if kind == "TemplateProcessing":
            ids = {name: tuple(token["ids"]) for name, token in one["special_tokens"].items()}
            return Wrapping(_template(one["single"], ids), _template(one["pair"], ids))
        if kind in _FIXED:
            single, pair, segments = _FIXED[kind]
            return Wrapping(
                tuple(_fixed(part, 0, one) for part in single),
                tuple(_fixed(part, segment, one) for part, segment in zip(pair, segments, strict=True)),
            )
    return None


def pipeline_state(part: Any) -> dict[str, Any] | None:
    """Return a part of the library's tokenizer as tokenizer.json states it.

    Raises:
        TypeError: the part is a custom one, which has no such form.
    """
    return None if part is None else dict(json.loads(part.__getstate__()))


def pipeline_steps(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Return the steps of such a part, in order; a sequence holds its own, perhaps sequences, in `name`."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[name] for step in pipeline_steps(inner, name)]


def wrapping_processor(wrapping: Wrapping, tokens: list[str]) -> dict[str, Any]:
    """Return the wrapping as the `post_processor` of a tokenizer.json."""
    used = sorted({i for piece in (*wrapping.single, *wrapping.pair) for i in piece.ids})

    def written(pieces: tuple[Piece, ...]) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for piece in pieces:
            if piece.text is not None:
                parts.append({"Sequence": {"id": "AB"[piece.text], "type_id": piece.segment}})
            parts += [{"SpecialToken": {"id": tokens[i], "type_id": piece.segment}} for i in piece.ids]
        return parts

    return {
        "type": "TemplateProcessing",
        "single": written(wrapping.single),
        "pair": written(wrapping.pair),
        "special_tokens": {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in used},
    }


def _template(parts: list[Mapping[str, Any]], ids: Mapping[str, tuple[int, ...]]) -> tuple[Piece, ...]:
    pieces = []
    for part in parts:
        ((kind, value),) = part.items()
        if kind == "Sequence":
            pieces.append(Piece("AB".index(value["id"]), (), value["type_id"]))
        else:
            pieces.append(Piece(None, ids[value["id"]], value["type_id"]))
    return tuple(pieces)


def _fixed(part: int | str, segment: int, processor: Mapping[str, Any]) -> Piece:
    if isinstance(part, int):
        return Piece(part, (), segment)
    return Piece(None, (processor[part][1],), segment)
