"""What the metadata of a GGUF file state about generation: special tokens, and `general.sampling.*`.

llama.cpp (`common_init_sampler_from_model` in common/common.cpp) reads the keys `general.sampling.*` as
defaults, which its options override. It reads numbers out of texts too, and ignores what is no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any

import numpy as np

from torchgguf.tokenization import TokenizerError
from torchgguf.tokenization.kinds.table import read_tokens

_logger = getLogger(__name__)
_PREFIX = "general.sampling."
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)

# The key, the field, the name in `sequence`, when llama.cpp switches the setting off, and the field's value
# then. A penalty of 0 would divide by zero there.
_KEYS: tuple[tuple[str, str, str, Callable[[float], bool], Any], ...] = (
    ("top_k", "top_k", "top_k", lambda k: k <= 0, 0),
    ("top_p", "top_p", "top_p", lambda p: p >= 1, 1.0),
    ("min_p", "min_p", "min_p", lambda p: p <= 0, 0.0),
    ("temp", "temperature", "temperature", lambda t: t <= 0, 0.0),
    ("penalty_repeat", "repetition_penalty", "penalties", lambda r: r <= 0 or r == 1, 1.0),
)
_HIGHEST = {"top_p": 1.0, "min_p": 1.0}
# Keys of what is not supported, and when llama.cpp ignores them.
_UNSUPPORTED: tuple[tuple[str, Callable[[float], bool]], ...] = (
    ("mirostat", lambda version: version == 0),
    ("xtc_probability", lambda share: share <= 0),
)


def sampling_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `GenerationConfig` that `general.sampling.*` mean, `do_sample` among them.

    A temperature of 0 or below is greedy decoding. Keys that are not supported are warned about.

    Args:
        metadata: of the file.
    """
    stated = {key[len(_PREFIX) :]: value for key, value in metadata.items() if key.startswith(_PREFIX)}
    sequence = stated.get("sequence")
    used = set(sequence.split(";")) if isinstance(sequence, str) and sequence.strip("; ") else None
    settings: dict[str, Any] = {}
    for key, field, sampler, is_off, neutral in _KEYS:
        if (number := _number(stated.get(key))) is None:
            continue
        if is_off(number) or (used is not None and sampler not in used):
            settings[field] = neutral if field != "temperature" or number <= 0 else 1.0
        else:
            settings[field] = min(max(number, 0), _HIGHEST.get(field, number))
    if _number(stated.get("penalty_last_n")) == 0:
        settings["repetition_penalty"] = 1.0
    if "top_k" in settings:
        settings["top_k"] = int(settings["top_k"])
    for key, is_off in _UNSUPPORTED:
        if (number := _number(stated.get(key))) is not None and not is_off(number):
            _logger.warning("%s%s=%s is not supported and ignored", _PREFIX, key, number)
    if not settings:
        return {}
    draws = settings.get("temperature", 1.0) > 0
    if not draws:  # llama.cpp then takes the best token, whatever else the file states
        settings = {name: settings[name] for name in settings if name == "repetition_penalty"}
    return {"do_sample": draws, **settings}


def gguf_settings(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file states of the fields of a `GenerationConfig`: special tokens and sampling.

    Args:
        metadata: of the file.
    """
    return {**special_tokens(metadata), **sampling_settings(metadata)}


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return which tokens begin, end and fill a text, by keys and by their names.

    Args:
        metadata: of the file.

    Returns:
        The fields; none if the file lists no tokens.
    """
    try:
        vocabulary = read_tokens(metadata)
    except TokenizerError:  # then a model's config states the only ones
        return {}
    return {
        "bos_token_id": vocabulary.roles.get("bos"),
        "eos_token_id": sorted(vocabulary.ends),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _number(value: Any) -> float | None:
    """Return the number that a value or the beginning of a text is; None: it is none."""
    if isinstance(value, str):
        match = _NUMBER.match(value)
        value = float(match[0]) if match else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or value != value:
        return None
    # The shortest decimal number for a float32: 0.7, not 0.699999988079071.
    return int(value) if isinstance(value, int | np.integer) else float(str(np.float32(value)))
