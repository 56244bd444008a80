"""From a config to the processors that it asks for, in the order in which transformers applies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchgguf.generation import logits_process as process, logits_warp as warp
from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.logits_process import LogitsProcessor


@dataclass(frozen=True)
class Situation:
    """What processors need to know beside their own field.

    Attributes:
        config: the settings.
        prompt_length: the length of the prompts, in tokens.
        max_length: the length of the longest text, in tokens.
        padding: how many tokens at the left of each row are padding.
    """

    config: GenerationConfig
    prompt_length: int
    max_length: int
    padding: Tensor | None


def _min_new_tokens(new: int, now: Situation) -> LogitsProcessor:
    return process.MinNewTokensLengthLogitsProcessor(now.prompt_length, new, now.config.eos_token_ids)


def _first_suppressed(tokens: Sequence[int], now: Situation) -> LogitsProcessor:
    forced = now.prompt_length == 1 and now.config.forced_bos_token_id is not None
    return process.SuppressTokensAtBeginLogitsProcessor(tokens, now.prompt_length + forced)


def _decay(pair: tuple[int, float], now: Situation) -> LogitsProcessor:
    return process.ExponentialDecayLengthPenalty(pair, now.config.eos_token_ids, now.prompt_length)


# The field, the values (None is another) at which it does nothing, what makes the processor; in the order of
# application.
_PROCESSORS: tuple[tuple[str, tuple[Any, ...], Callable[[Any, Situation], LogitsProcessor]], ...] = (
    ("sequence_bias", ({}, [], ()), lambda bias, now: process.SequenceBiasLogitsProcessor(bias)),
    (
        "repetition_penalty",
        (1.0,),
        lambda penalty, now: process.RepetitionPenaltyLogitsProcessor(penalty, now.padding),
    ),
    ("no_repeat_ngram_size", (0,), lambda size, now: process.NoRepeatNGramLogitsProcessor(size)),
    (
        "bad_words_ids",
        ([], ()),
        lambda words, now: process.NoBadWordsLogitsProcessor(words, now.config.eos_token_ids),
    ),
    (
        "min_length",
        (0,),
        lambda length, now: process.MinLengthLogitsProcessor(length, now.config.eos_token_ids),
    ),
    ("min_new_tokens", (0,), _min_new_tokens),
    ("prefix_allowed_tokens_fn", (), lambda processor, now: processor),
    ("forced_bos_token_id", (), lambda token, now: process.ForcedBOSTokenLogitsProcessor(token)),
    (
        "forced_eos_token_id",
        (),
        lambda tokens, now: process.ForcedEOSTokenLogitsProcessor(now.max_length, tokens),
    ),
    ("remove_invalid_values", (False,), lambda wanted, now: process.InfNanRemoveLogitsProcessor()),
    ("exponential_decay_length_penalty", (), _decay),
    ("suppress_tokens", ([], ()), lambda tokens, now: process.SuppressTokensLogitsProcessor(tokens)),
    ("begin_suppress_tokens", ([], ()), _first_suppressed),
)


def processors_for(
    config: GenerationConfig,
    prompt_length: int,
    max_length: int,
    padding: Tensor | None = None,
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
) -> list[LogitsProcessor]:
    """Return the processors that apply to every way of decoding, in order.

    Args:
        config: which of them, and their values.
        prompt_length: in tokens.
        max_length: of prompt and continuation, in tokens.
        padding: (batch,), how many tokens at the left of each row are padding.
        prefix_allowed_tokens_fn: as in `PrefixConstrainedLogitsProcessor`.
    """
    now = Situation(config, prompt_length, max_length, padding)
    values = vars(config) | {"prefix_allowed_tokens_fn": None}
    if prefix_allowed_tokens_fn is not None:
        values["prefix_allowed_tokens_fn"] = process.PrefixConstrainedLogitsProcessor(
            prefix_allowed_tokens_fn, config.num_beams or 1
        )
    return [
        make(values[field], now)
        for field, neutral, make in _PROCESSORS
        if values[field] is not None and values[field] not in neutral
    ]


# As above; `keep` is how many of the best tokens must survive.
_WARPERS: tuple[tuple[str, Callable[[Any], bool], Callable[[Any, int], LogitsProcessor]], ...] = (
    ("temperature", lambda t: t == 1, lambda temperature, keep: warp.TemperatureLogitsWarper(temperature)),
    ("top_k", lambda k: k <= 0, lambda k, keep: warp.TopKLogitsWarper(k, min_tokens_to_keep=keep)),
    ("top_p", lambda p: p == 1, lambda p, keep: warp.TopPLogitsWarper(p, min_tokens_to_keep=keep)),
    ("min_p", lambda p: p == 0, lambda p, keep: warp.MinPLogitsWarper(p, min_tokens_to_keep=keep)),
    ("typical_p", lambda p: p == 1, lambda p, keep: warp.TypicalLogitsWarper(p, min_tokens_to_keep=keep)),
    (
        "epsilon_cutoff",
        lambda e: e == 0,
        lambda e, keep: warp.EpsilonLogitsWarper(e, min_tokens_to_keep=keep),
    ),
    ("eta_cutoff", lambda e: e == 0, lambda e, keep: warp.EtaLogitsWarper(e, min_tokens_to_keep=keep)),
)


def warpers_for(config: GenerationConfig) -> list[LogitsProcessor]:
    """Return the processors that come last, in order; without `do_sample` they shape nothing."""
    # As every beam may draw an end, and there must be something else to go on with.
    keep = max(2, len(config.eos_token_ids) + 1) if (config.num_beams or 1) > 1 else 1
    warpers = [
        make(value, keep)
        for field, is_off, make in _WARPERS
        if config.do_sample and (value := getattr(config, field)) is not None and not is_off(value)
    ]
    return [*warpers, warp.LogitNormalization()] if config.renormalize_logits else warpers
