"""SentencePiece's own file, a protocol buffer: pieces, how they were trained and how texts are normalized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from gguf.constants import TokenType

from torchgguf.tokenization.errors import TokenizerError

# The fields of `sentencepiece_model.proto` that matter here: name -> (number, type of the protocol buffer).
_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Piece": {"piece": (1, "STRING"), "score": (2, "FLOAT"), "type": (3, "INT32")},
    "Trainer": {
        "model_type": (3, "INT32"),
        "bos_id": (41, "INT32"),
        "eos_id": (42, "INT32"),
        "pad_id": (43, "INT32"),
    },
    "Normalizer": {
        "precompiled_charsmap": (2, "BYTES"),
        "add_dummy_prefix": (3, "BOOL"),
        "remove_extra_whitespaces": (4, "BOOL"),
    },
    "Model": {"pieces": (1, "Piece"), "trainer_spec": (2, "Trainer"), "normalizer_spec": (3, "Normalizer")},
}
# The values of fields that a file omits.
_DEFAULTS: dict[str, Any] = {
    "model_type": 1,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "type": 1,
    "precompiled_charsmap": b"",
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": True,
}
_UNIGRAM, _BPE = 1, 2


@dataclass(frozen=True)
class SentencePieceModel:
    """The contents of a SentencePiece model.

    Attributes:
        tokens: the tokens by id.
        scores: their scores.
        types: their types.
        roles: the ids by role: "bos", "eos", "unk", "pad".
        unigram: of all ways to split a text, the one with the best scores is found; else pairs merge (BPE).
        add_space_prefix: a space is added before texts.
        merges_spaces: several spaces become one.
        charsmap: the map by which characters are normalized.
    """

    tokens: list[str]
    scores: list[float]
    types: list[TokenType]
    roles: Mapping[str, int]
    unigram: bool
    add_space_prefix: bool
    merges_spaces: bool
    charsmap: bytes


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """Read tokenizer.model.

    Args:
        data: its contents.

    Raises:
        TokenizerError: it is not a SentencePiece model, or of another kind than BPE and Unigram.
        ImportError: the package protobuf is missing; the message states how to install it.
    """
    model = _message_class()()
    try:
        model.ParseFromString(data)
        pieces = [(piece.piece, piece.score, TokenType(_value(piece, "type"))) for piece in model.pieces]
    except Exception as error:  # the library's error has no base that is its own
        raise TokenizerError(f"tokenizer.model is not a SentencePiece model: {error}") from None
    if not pieces:
        raise TokenizerError("tokenizer.model is not a SentencePiece model: it has no pieces")
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kind = _value(trainer, "model_type")
    if kind not in (_UNIGRAM, _BPE):
        raise TokenizerError(
            "tokenizer.model: only SentencePiece models of the types Unigram and BPE are supported"
        )
    tokens, scores, types = map(list, zip(*pieces, strict=True))
    if TokenType.UNKNOWN not in types:
        raise TokenizerError("tokenizer.model is not a SentencePiece model: no piece is the unknown one")
    ids = {role: _value(trainer, f"{role}_id") for role in ("bos", "eos", "pad")}
    ids["unk"] = types.index(TokenType.UNKNOWN)  # SentencePiece finds it in the same way
    return SentencePieceModel(
        tokens,
        scores,
        types,
        {role: i for role, i in ids.items() if 0 <= i < len(tokens)},
        kind == _UNIGRAM,
        _value(normalizer, "add_dummy_prefix"),
        _value(normalizer, "remove_extra_whitespaces"),
        _value(normalizer, "precompiled_charsmap"),
    )


def _value(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else _DEFAULTS[name]


@cache
def _message_class() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            "reading tokenizer.model needs the package protobuf: pip install 'torchgguf[sentencepiece]'"
        ) from None

    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="torchgguf.proto", package="torchgguf", syntax="proto2")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(name=name, number=number, label=field_types.LABEL_OPTIONAL)
            if kind in _FIELDS:
                field.type, field.type_name = field_types.TYPE_MESSAGE, f".torchgguf.{kind}"
            else:
                field.type = field_types.Type.Value(f"TYPE_{kind}")
            if name == "pieces":
                field.label = field_types.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("torchgguf.Model"))
