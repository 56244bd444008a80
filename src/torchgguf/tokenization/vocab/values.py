"""Values of a GGUF file's metadata below `tokenizer.ggml.`, checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchgguf.tokenization.errors import TokenizerError

PREFIX = "tokenizer.ggml."


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_value(
    metadata: Mapping[str, Any],
    name: str,
    kind: type,
    *,
    of: type | tuple[type, ...] = str,
    length: int | None = None,
) -> Any:
    """Return the value of `tokenizer.ggml.<name>`, or None if the key is missing.

    Args:
        metadata: the file's metadata.
        name: the key without its prefix.
        kind: the type that the value must have.
        of: the type that the entries of a list must have.
        length: the number of entries that a list must have, which is the number of tokens.

    Raises:
        TokenizerError: the value, its length or an entry is of another kind.
    """
    value = metadata.get(PREFIX + name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TokenizerError(f"{PREFIX}{name} must be a {kind.__name__}, got a {type(value).__name__}")
    if isinstance(value, list):
        if length is not None and len(value) != length:
            raise TokenizerError(f"{PREFIX}{name} has {len(value)} entries for {length} tokens")
        if odd := next((t for t in set(map(type, value)) if not issubclass(t, of) or t is bool), None):
            raise TokenizerError(f"{PREFIX}{name} contains a {odd.__name__}")
    return value


def read_flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return the flag `tokenizer.ggml.<name>`, or the default if the key is missing.

    Raises:
        TokenizerError: the value is not a bool.
    """
    stated = read_value(metadata, name, bool)
    return default if stated is None else bool(stated)
