"""What values the fields of a `GenerationConfig` may have; which fields of transformers have none here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

CACHES = ("dynamic", "static")

# Fields of transformers' config that change what is generated and are not supported, with the value (None is
# another) that changes nothing. Those that are in neither only tune these, or say nothing of texts.
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
    """Token ids as a list, whichever way they were given."""
    return [] if token_ids is None else [token_ids] if isinstance(token_ids, int) else list(token_ids)


def stop_texts(stop_strings: str | Sequence[str] | None) -> list[str]:
    """The texts that end a text, as a list whichever way they were given. `ValueError` for an empty one."""
    texts = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings or ())
    if not all(texts):
        raise ValueError("an empty stop string would stop everything")
    return texts


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) > 0 and all(map(_is_token, value))


def _is_bias(value: Any) -> bool:
    pairs = value.items() if isinstance(value, Mapping) else value
    return len(pairs) > 0 and all(
        _is_text(tokens) and isinstance(bias, int | float) for tokens, bias in pairs
    )


# What is allowed, and how to say it.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_length": (lambda n: n >= 1, "at least 1"),
    "max_new_tokens": (lambda n: n >= 1, "at least 1"),
    "min_length": (lambda n: n >= 0, "at least 0"),
    "min_new_tokens": (lambda n: n >= 0, "at least 0"),
    "max_time": (lambda t: t > 0, "above 0 seconds"),
    "temperature": (lambda t: t > 0, "above 0 (for greedy decoding set do_sample=False)"),
    "top_k": (lambda k: k >= 0 and k == int(k), "a whole number, 0 for no limit"),
    "top_p": (lambda p: 0 <= p <= 1, "between 0 and 1"),
    "min_p": (lambda p: 0 <= p <= 1, "between 0 and 1"),
    "typical_p": (lambda p: 0 < p <= 1, "above 0 and at most 1"),
    "epsilon_cutoff": (lambda p: 0 <= p < 1, "at least 0 and below 1"),
    "eta_cutoff": (lambda p: 0 <= p < 1, "at least 0 and below 1"),
    "repetition_penalty": (lambda r: r > 0, "above 0"),
    "no_repeat_ngram_size": (lambda n: n >= 0 and n == int(n), "a whole number, 0 for no limit"),
    "sequence_bias": (_is_bias, "a dict from tuples of token ids to numbers, or a list of such pairs"),
    "bad_words_ids": (lambda words: len(words) > 0 and all(map(_is_text, words)), "lists of token ids"),
    "suppress_tokens": (lambda tokens: all(map(_is_token, tokens)), "token ids"),
    "begin_suppress_tokens": (lambda tokens: all(map(_is_token, tokens)), "token ids"),
    "forced_bos_token_id": (_is_token, "a token id"),
    "forced_eos_token_id": (lambda token: _is_token(token) or _is_text(token), "a token id, or several"),
    "exponential_decay_length_penalty": (
        lambda pair: len(pair) == 2 and pair[0] >= 0 and pair[1] > 0,
        "a number of tokens to begin after and a factor above 0",
    ),
    "num_return_sequences": (lambda n: n >= 1, "at least 1"),
    "num_beams": (lambda n: n >= 1, "at least 1"),
    "early_stopping": (lambda e: isinstance(e, bool) or e == "never", 'True, False or "never"'),
    "cache_implementation": (lambda name: name in CACHES, f"one of {', '.join(CACHES)}"),
    "max_cache_len": (lambda n: n >= 1, "at least 1"),
    "prefill_chunk_size": (lambda n: n >= 1, "at least 1"),
}
