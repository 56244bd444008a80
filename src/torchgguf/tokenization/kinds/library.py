"""The border to the `tokenizers` library: what it raises, and what makes it fill the memory or abort.

Its errors are of no class of their own; where its Rust panics, they are no `Exception` either.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from torchgguf.tokenization.errors import TokenizerError

_PANICS = "pyo3_runtime"  # the module of the class of panics, which nothing exports
_LONGEST_TOKEN = 1 << 10  # characters; the library needs more for longer ones than their length
_ADDED_TEXT = 1 << 20  # characters of all added tokens: a character costs 70 bytes
_EXTRA_CUTS = 1 << 20
_LONGEST_MAPPED = 1 << 7  # bytes for a character; Unicode's own longest has 33


@contextmanager
def library_errors(what: str, *, building: bool = False) -> Iterator[None]:
    """Turn errors and panics of the library inside into `TokenizerError`.

    Args:
        what: what the library is called for, which begins the message.
        building: a tokenizer is built from a file, so that errors of any class are the file's.

    Raises:
        TokenizerError: the library has failed.
    """
    try:
        yield
    except (TokenizerError, MemoryError):
        raise
    except BaseException as error:
        panics = type(error).__module__ == _PANICS
        if panics or type(error) is Exception or (building and isinstance(error, Exception)):
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TokenizerError(f"{what}: {reason[:500]}") from None
        raise


def check_added(name: str, tokens: Sequence[str]) -> None:
    """Check that the library can search texts for these tokens in memory of bounded size.

    Args:
        name: the field of the file that lists them.
        tokens: their texts.

    Raises:
        TokenizerError: they are too long.
    """
    if (longest := max(map(len, tokens), default=0)) > _LONGEST_TOKEN:
        raise TokenizerError(f"{name}: an added token has {longest} characters, more than {_LONGEST_TOKEN}")
    if (size := sum(map(len, tokens))) > _ADDED_TEXT:
        raise TokenizerError(f"{name}: added tokens have {size} characters together, more than {_ADDED_TEXT}")


def check_lengths(name: str, tokens: Sequence[str]) -> None:
    """Check that trying all ways to cut each token in two takes bounded time and memory.

    Args:
        name: the field of the file that lists them.
        tokens: the tokens.

    Raises:
        TokenizerError: a token is too long, or long ones are too many.
    """
    lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
    if len(tokens) and (longest := lengths.max()) > _LONGEST_TOKEN:
        i = lengths.argmax()
        raise TokenizerError(f"{name}: token {i} has {longest} characters, more than {_LONGEST_TOKEN}")
    if (cuts := (lengths**2).sum()) > 16 * lengths.sum() + _EXTRA_CUTS:
        raise TokenizerError(
            f"{name}: too many tokens are long: their {lengths.sum()} characters are cut and joined in ways "
            f"with {cuts} characters"
        )


def check_charsmap(charsmap: bytes) -> int:
    """Check that SentencePiece's map of characters stays inside itself, which the library does not check.

    It holds the size of a double array in bytes, the array, and texts that end in zero bytes. From entry i
    the way goes to i ^ offset ^ (a byte of the text); if bit 8 is set, i ^ offset states where a text begins.
    Source: Darts-clone, with which SentencePiece builds it.

    Returns:
        The length of the longest text in bytes.

    Raises:
        ValueError: the map leads out of itself, or makes texts much longer.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 0 < size <= len(charsmap) - 4:
        raise ValueError(f"it has {len(charsmap)} bytes, {size} of which should be a trie")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4)
    texts = np.frombuffer(charsmap, np.uint8, offset=4 + size)
    inner = np.flatnonzero(units < 1 << 31)
    bases = inner ^ ((units[inner] >> 10) << ((units[inner] & 1 << 9) >> 6))
    if units[0] >> 31 or (bases | 0xFF).max() >= len(units):
        raise ValueError("its trie leads out of it")
    begins = units[bases[units[inner] >> 8 & 1 == 1]] & 0x7FFFFFFF
    inside_character = np.append(texts & 0xC0 == 0x80, False)
    if begins.max(initial=0) > len(texts) or inside_character[begins].any():
        raise ValueError("its trie leads to no text")
    ends = np.flatnonzero(np.append(texts, 0) == 0)
    longest = int(np.diff(ends, prepend=-1).max()) - 1
    if longest > _LONGEST_MAPPED:
        raise ValueError(f"it maps a character to {longest} bytes")
    return longest


# How many times longer each step may make a text, in bytes; a cautious estimate of what Unicode's do.
_GROWTH = {"NFKC": 4, "NFKD": 4, "NFC": 2, "NFD": 2, "Lowercase": 2, "ByteLevel": 2, "BertNormalizer": 4}
_MOST_GROWTH = 1 << 10
_MOST_STEPS = 100


def check_growth(name: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """Check that steps, which the library applies one after the other, make no text much longer.

    Args:
        name: the file that states them.
        steps: the steps as tokenizer.json states them.

    Raises:
        TokenizerError: they may, or one of them has an option that the library has no answer to.
    """
    if len(steps) > _MOST_STEPS:
        raise TokenizerError(f"{name} has {len(steps)} steps, more than {_MOST_STEPS}")
    total = 1
    for step in steps:
        total *= _growth(name, step)
        if total > _MOST_GROWTH:
            raise TokenizerError(f"{name}: its steps may make a text over {_MOST_GROWTH} times longer")


def _growth(name: str, step: Mapping[str, Any]) -> int:
    match step:
        case {"type": "Replace", "pattern": {"String": ""}} | {"type": "FixedLength", "length": 0}:
            raise TokenizerError(f"{name}: {step['type']} has nothing to search for")
        case {"type": "Replace", "pattern": {"String": old}, "content": new}:
            return -(-len(new.encode()) // len(old.encode())) or 1
        case {"type": "Replace", "content": new} | {"type": "Prepend", "prepend": new}:
            return 1 + len(new.encode())
        case {"type": "Metaspace", "replacement": new}:
            return 1 + len(new.encode())
        case {"type": "Precompiled", "precompiled_charsmap": text}:
            try:
                longest = check_charsmap(base64.b64decode(text))
            except ValueError as error:
                raise TokenizerError(f"{name}: precompiled_charsmap is not a map: {error}") from None
            return -(-longest // 3) or 1  # mostly of characters of three bytes
    return _GROWTH.get(step["type"], 1)
