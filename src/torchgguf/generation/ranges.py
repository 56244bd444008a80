"""What values the fields of a `GenerationConfig` may have, and when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

CACHES = ("dynamic", "static")


def as_tokens(token_ids: int | Sequence[int] | None) -> list[int]:
    """Return token ids as a list; negative ones, which no token has, are left out."""
    ids = [] if token_ids is None else token_ids if isinstance(token_ids, Sequence) else [token_ids]
    return [token for token in ids if token >= 0]


def stop_texts(stop_strings: str | Sequence[str] | None) -> list[str]:
    """Return the texts that end a text as a list.

    Raises:
        ValueError: one of them is empty.
    """
    texts = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings or ())
    if not all(texts):
        raise ValueError("an empty stop string would stop everything")
    return texts


Check = Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_list(of: Check, shortest: int = 0) -> Check:
    def check(values: Any) -> bool:
        return isinstance(values, Sequence) and len(values) >= shortest and all(map(of, values))

    return check


def _is_bias(value: Any) -> bool:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    return _is_list(lambda pair: len(pair) == 2 and _is_text(pair[0]) and _is_number(pair[1]))(pairs)


def _is_decay(pair: Any) -> bool:
    return _is_list(_is_number, 2)(pair) and len(pair) == 2 and _is_token(pair[0]) and pair[1] > 0


_is_text = _is_list(_is_token, 1)


def _whole(lowest: int) -> tuple[Check, str]:
    return lambda n: _is_whole(n) and n >= lowest, f"a whole number, at least {lowest}"


def _number(allowed: Check, wish: str) -> tuple[Check, str]:
    return lambda n: _is_number(n) and allowed(n), f"a number {wish}"


_SHARE = _number(lambda p: 0 <= p <= 1, "between 0 and 1")
_CUTOFF = _number(lambda p: 0 <= p < 1, "at least 0 and below 1")
_FLAG: tuple[Check, str] = (lambda flag: isinstance(flag, bool), "True or False")
_TOKENS: tuple[Check, str] = (_is_list(_is_token), "a list of token ids")

# What is allowed, and the words of the error.
CHECKS: dict[str, tuple[Check, str]] = {
    "max_length": _whole(1),
    "max_new_tokens": _whole(1),
    "min_length": _whole(0),
    "min_new_tokens": _whole(0),
    "max_time": _number(lambda t: t > 0, "of seconds above 0"),
    "stop_strings": (
        lambda texts: isinstance(texts, str) or _is_list(lambda text: isinstance(text, str))(texts),
        "a text or a list of texts",
    ),
    "do_sample": _FLAG,
    "temperature": _number(lambda t: t >= 0, "above 0, or 0 for greedy decoding"),
    "top_k": (_whole(-1)[0], "a whole number, 0 for no limit"),
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _number(lambda p: 0 < p <= 1, "above 0 and at most 1"),
    "epsilon_cutoff": _CUTOFF,
    "eta_cutoff": _CUTOFF,
    "repetition_penalty": _number(lambda r: r > 0, "above 0"),
    "no_repeat_ngram_size": (_whole(0)[0], "a whole number, 0 for no limit"),
    "sequence_bias": (_is_bias, "a dict from tuples of token ids to numbers, or a list of such pairs"),
    "bad_words_ids": (_is_list(_is_text), "lists of token ids"),
    "suppress_tokens": _TOKENS,
    "begin_suppress_tokens": _TOKENS,
    "forced_bos_token_id": (_is_token, "a token id"),
    "forced_eos_token_id": (lambda token: _is_token(token) or _is_text(token), "a token id, or several"),
    "exponential_decay_length_penalty": (
        _is_decay,
        "a pair: a number of tokens to begin after, and a factor above 0",
    ),
    "remove_invalid_values": _FLAG,
    "renormalize_logits": _FLAG,
    "num_return_sequences": _whole(1),
    "num_beams": _whole(1),
    "length_penalty": _number(lambda _: True, "such as 1.0"),
    "early_stopping": (lambda e: isinstance(e, bool) or e == "never", 'True, False or "never"'),
    "use_cache": _FLAG,
    "cache_implementation": (lambda name: name in CACHES, f"one of {', '.join(CACHES)}"),
    "max_cache_len": _whole(1),
    "prefill_chunk_size": _whole(1),
    "prompt_lookup_num_tokens": _whole(0),
    "max_matching_ngram_size": _whole(1),
    "return_dict_in_generate": _FLAG,
    "output_scores": _FLAG,
    "output_logits": _FLAG,
    "output_attentions": _FLAG,
    "output_hidden_states": _FLAG,
    # -1 in the first Llamas' files; other programs' word for no such token
    "eos_token_id": (lambda token: _is_whole(token) or _is_list(_is_whole)(token), "a token id, or several"),
    "pad_token_id": (_is_whole, "a token id"),
    "bos_token_id": (_is_whole, "a token id"),
    "decoder_start_token_id": (
        lambda x: _is_token(x) or _is_list(_is_token, 1)(x),
        "one or several token ids",
    ),
}


def is_usable(name: str, value: Any) -> bool:
    """Return whether a field of a `GenerationConfig` may have this value."""
    if value is None:
        return True
    texts = [value] if isinstance(value, str) else value
    return CHECKS[name][0](value) and (name != "stop_strings" or all(texts))


# The fields that only some ways of decoding read: names, when they are read, and the words for that.
Sense = Callable[[Any], object]
DEPENDENT: tuple[tuple[tuple[str, ...], Sense, str], ...] = (
    (
        ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        lambda config: config.do_sample,
        "do_sample=True",
    ),
    (
        ("length_penalty", "early_stopping"),
        lambda config: _is_whole(config.num_beams) and config.num_beams > 1,
        "num_beams above 1",
    ),
    (
        ("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
        lambda config: config.return_dict_in_generate,
        "return_dict_in_generate=True",
    ),
    (
        ("max_cache_len",),
        lambda config: config.cache_implementation == "static",
        'cache_implementation="static"',
    ),
)
_SENSE = {name: sense for names, sense, _ in DEPENDENT for name in names}


def is_read(name: str, config: Any) -> bool:
    """Return whether the way of decoding that a config asks for reads the field."""
    return bool(_SENSE[name](config)) if name in _SENSE else True


# What stored values outside their range mean, by which other programs switch a setting off.
_OFF: dict[str, tuple[Callable[[Any], bool], Any]] = {
    "temperature": (lambda t: t < 0, 0.0),
    "top_k": (lambda k: k < 0, 0),
    "top_p": (lambda p: p > 1, 1.0),
    "min_p": (lambda p: p < 0, 0.0),
    "typical_p": (lambda p: p <= 0 or p > 1, 1.0),
    "repetition_penalty": (lambda r: r <= 0, 1.0),
}


def meaning_of(name: str, value: Any) -> Any:
    """Return the usable value that an unusable one of a file stands for, or None, if for nothing."""
    if isinstance(value, float) and value.is_integer() and is_usable(name, int(value)):
        return int(value)  # JSON has one kind of number
    off, neutral = _OFF.get(name, (None, None))
    return neutral if off is not None and _is_number(value) and off(value) else None
