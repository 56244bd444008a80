"""Merges several configs and the arguments of a call into one config: priorities, contradictions."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from typing import Any

from torchgguf.generation.configuration import FIELDS, GenerationConfig
from torchgguf.generation.ranges import UNSUPPORTED, as_tokens, refuse_unsupported

# max_length is left out: without any length, 20 tokens follow whatever prompt there is.
DEFAULTS = GenerationConfig(
    min_length=0,
    do_sample=False,
    temperature=1.0,
    top_k=50,
    top_p=1.0,
    typical_p=1.0,
    epsilon_cutoff=0.0,
    eta_cutoff=0.0,
    repetition_penalty=1.0,
    no_repeat_ngram_size=0,
    num_return_sequences=1,
    num_beams=1,
    length_penalty=1.0,
    early_stopping=False,
    use_cache=True,
    return_dict_in_generate=False,
    output_scores=False,
)
DEFAULT_NEW_TOKENS = 20

# Settings that another one must make sense of.
_DEPENDENT: tuple[tuple[tuple[str, ...], Callable[[GenerationConfig], object], str], ...] = (
    (
        ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        lambda config: config.do_sample,
        "do_sample=True",
    ),
    (("length_penalty", "early_stopping"), lambda config: (config.num_beams or 1) > 1, "num_beams above 1"),
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


def resolve(model_config: Any, call_config: Any, arguments: dict[str, Any]) -> GenerationConfig:
    """Merge configs into one.

    Args:
        model_config: the model's own, here or of transformers; None: there is no such config. It overrides
            `DEFAULTS`.
        call_config: that of the call, of the same kinds; it overrides the model's.
        arguments: of the call, by name; they override all.

    Raises:
        TypeError: an argument is unknown; the message names it.
        ValueError: settings contradict each other, or are unsupported.
    """
    _check_names(arguments)
    refuse_unsupported(arguments)
    asked = _settings(call_config) | {name: value for name, value in arguments.items() if name in FIELDS}
    config = GenerationConfig(**DEFAULTS.settings() | _settings(model_config) | asked)
    for names, sense, wish in _DEPENDENT:
        idle = [n for n in names if asked.get(n) not in (None, False, getattr(DEFAULTS, n))]
        if idle and not sense(config):
            verb = "has" if len(idle) == 1 else "have"
            warnings.warn(f"{', '.join(idle)} {verb} no effect without {wish}", UserWarning, stacklevel=4)
    _check_together(config)
    return config


def _settings(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    own = config if isinstance(config, GenerationConfig) else GenerationConfig.from_dict(config.to_dict())
    return own.settings()


def _check_names(arguments: dict[str, Any]) -> None:
    unknown = [name for name in arguments if name not in FIELDS and name not in UNSUPPORTED]
    if unknown:
        close = difflib.get_close_matches(unknown[0], FIELDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TypeError(f"generate() does not know {', '.join(map(repr, unknown))}{hint}")


def _check_together(config: GenerationConfig) -> None:
    beams, sequences = config.num_beams or 1, config.num_return_sequences or 1
    if sequences > 1 and beams == 1 and not config.do_sample:
        raise ValueError(
            "num_return_sequences above 1 needs do_sample=True or num_beams: greedy decoding has one answer"
        )
    if 1 < beams < sequences:
        raise ValueError(f"num_return_sequences must be at most num_beams={beams}, got {sequences}")
    if config.use_cache is False:
        if config.prefill_chunk_size is not None:
            raise ValueError(
                "prefill_chunk_size needs use_cache: without, the whole text is read at every step"
            )
        if config.cache_implementation is not None:
            raise ValueError("cache_implementation needs use_cache")
    if config.exponential_decay_length_penalty is not None and not config.eos_token_ids:
        raise ValueError("exponential_decay_length_penalty needs an eos_token_id to make more likely")
    forced = {
        "forced_bos_token_id": config.forced_bos_token_id,
        "forced_eos_token_id": config.forced_eos_token_id,
    }
    for name, tokens in forced.items():
        if tokens is not None and set(as_tokens(tokens)) <= set(config.suppress_tokens or ()):
            raise ValueError(f"{name}={tokens} is among suppress_tokens: no token would be left")
