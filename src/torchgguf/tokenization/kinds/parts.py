"""What turns a stretch of text into tokens and back, as the kinds of tokenizer put it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import decoders, models, normalizers, pre_tokenizers

SPACE = "▁"  # what SentencePiece writes for a space
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]  # what it writes for a byte


@dataclass(frozen=True)
class Parts:
    """What is done to a stretch of text: normalized, cut into pieces, each made tokens by the model.

    `decoder`: the way back, for others who read the tokenizer that we write. `spell`: the bytes that an
    ordinary token stands for; `spell_special`: those of one that texts are searched for. `add_space_prefix`:
    each stretch of text is given a leading space, of which decoding takes the first one away. `plain_model`:
    makes the model for texts whose special tokens are but text, if it is another.
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
    """The text of a token with SentencePiece's mark for a space."""
    return token.replace(SPACE, " ").encode()


def sentencepiece_decoder(add_space_prefix: bool) -> decoders.Decoder:
    """The way back from SentencePiece's tokens."""
    strip = [decoders.Strip(" ", 1, 0)] if add_space_prefix else []
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    return decoders.Sequence(steps)
