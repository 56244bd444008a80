"""`Parts`: what turns a stretch of text into tokens and back, as the kinds of tokenizer build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import decoders, models, normalizers, pre_tokenizers

SPACE = "▁"  # SentencePiece's mark for a space
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # its tokens for bytes


@dataclass(frozen=True)
class Parts:
    """The steps for a stretch of text: it is normalized, split into pieces, and each becomes tokens.

    Attributes:
        model: turns pieces into tokens.
        normalizer: changes the text first.
        pre_tokenizer: splits it.
        decoder: turns tokens into text, for other readers of the tokenizer that we write.
        spell: returns the bytes that an ordinary token stands for.
        spell_special: returns the bytes of a token that texts are searched for.
        add_space_prefix: a space is added before each stretch of text; decoding removes the first.
        plain_model: builds the model for texts whose special tokens are plain text, if it is another.
    """

    model: models.Model
    normalizer: normalizers.Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None
    decoder: decoders.Decoder
    spell: Callable[[str], bytes]
    spell_special: Callable[[str], bytes] = str.encode
    add_space_prefix: bool = False
    plain_model: Callable[[], models.Model] | None = None


def spell_sentencepiece(token: str) -> bytes:
    """Return the text of a token with SentencePiece's mark for a space, as UTF-8."""
    return token.replace(SPACE, " ").encode()


def sentencepiece_decoder(add_space_prefix: bool) -> decoders.Decoder:
    """Return the decoder for SentencePiece's tokens."""
    strip = [decoders.Strip(" ", 1, 0)] if add_space_prefix else []
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    return decoders.Sequence(steps)
