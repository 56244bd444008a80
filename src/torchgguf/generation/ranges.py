"""What values the fields of a `GenerationConfig` may have; which fields of transformers have none here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

CACHES = ("dynamic", "static")

# Fields of transformers' config that change what is generated and are not supported, with the value (None is
# another) that changes nothing. Those that are in neither only tune these, or do not change texts.
UNSUPPORTED: dict[str, Any] = {
    "assistant_early_exit": None,
    "cache_config": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "low_memory": False,
    "num_beam_groups": 1,
    "penalty_alpha": 0.0,
    "prompt_lookup_num_tokens": None,
    "remove_invalid_values": False,
    "speculation_type": None,
    "token_healing": False,
    "top_h": None,
    "use_mtp": False,
    "watermarking_config": None,
}


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Raise ValueError that names the settings by which transformers would generate otherwise than we can."""
    for name, neutral in UNSUPPORTED.items():
        if (value := values.get(name)) is not None and value != neutral:
            raise ValueError(f"{name}={value!r} is not supported: leave it out")


def as_tokens(token_ids: int | Sequence[int] | None) -> list[int]:
    """Return token ids as a list."""
    return [] if token_ids is None else list(token_ids) if isinstance(token_ids, Sequence) else [token_ids]


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
    return _is_list(lambda pair: len(pair) == 2 and _is_text(pair[0]) and _is_number(pair[1]), 1)(pairs)


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
    "temperature": _number(lambda t: t > 0, "above 0 (for greedy decoding set do_sample=False)"),
    "top_k": (_whole(0)[0], "a whole number, 0 for no limit"),
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _number(lambda p: 0 < p <= 1, "above 0 and at most 1"),
    "epsilon_cutoff": _CUTOFF,
    "eta_cutoff": _CUTOFF,
    "repetition_penalty": _number(lambda r: r > 0, "above 0"),
    "no_repeat_ngram_size": (_whole(0)[0], "a whole number, 0 for no limit"),
    "sequence_bias": (_is_bias, "a dict from tuples of token ids to numbers, or a list of such pairs"),
    "bad_words_ids": (_is_list(_is_text, 1), "lists of token ids"),
    "suppress_tokens": _TOKENS,
    "begin_suppress_tokens": _TOKENS,
    "forced_bos_token_id": (_is_token, "a token id"),
    "forced_eos_token_id": (lambda token: _is_token(token) or _is_text(token), "a token id, or several"),
    "exponential_decay_length_penalty": (
        _is_decay,
        "a pair: a number of tokens to begin after, and a factor above 0",
    ),
    "renormalize_logits": _FLAG,
    "num_return_sequences": _whole(1),
    "num_beams": _whole(1),
    "length_penalty": _number(lambda _: True, "such as 1.0"),
    "early_stopping": (lambda e: isinstance(e, bool) or e == "never", 'True, False or "never"'),
    "use_cache": _FLAG,
    "cache_implementation": (lambda name: name in CACHES, f"one of {', '.join(CACHES)}"),
    "max_cache_len": _whole(1),
    "prefill_chunk_size": _whole(1),
    "return_dict_in_generate": _FLAG,
    "output_scores": _FLAG,
    "output_logits": _FLAG,
    "output_attentions": _FLAG,
    "output_hidden_states": _FLAG,
    "eos_token_id": (lambda token: _is_token(token) or _is_list(_is_token)(token), "a token id, or several"),
    "pad_token_id": (_is_whole, "a token id"),  # -1 in the first Llamas' files
    "bos_token_id": (_is_token, "a token id"),
}
