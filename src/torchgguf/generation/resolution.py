"""Merges several configs and the arguments of a call into one config: priorities, contradictions."""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from torchgguf.generation.configuration import FIELDS, GenerationConfig
from torchgguf.generation.foreign import FOREIGN, refuse_unsupported
from torchgguf.generation.ranges import DEPENDENT, as_tokens

# max_length is left out: without any length, 20 tokens follow whatever prompt there is.
DEFAULTS = GenerationConfig(
    min_length=0,
    do_sample=False,
    temperature=1.0,
    top_k=50,
    top_p=1.0,
    typical_p=1.0,
    remove_invalid_values=False,
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
# Beyond, activations are so large that the system maps and clears new memory for each of them.
DEFAULT_CHUNK = 512  # tokens


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
    asked = settings_of(call_config) | {name: value for name, value in arguments.items() if name in FIELDS}
    if asked.get("use_cache") is False:  # what the model's config says of the cache is not asked for
        asked = {"cache_implementation": None, "max_cache_len": None, "prefill_chunk_size": None} | asked
    stated = settings_of(model_config) | asked
    if "prefill_chunk_size" not in stated and not _reads_at_once(stated):
        stated["prefill_chunk_size"] = DEFAULT_CHUNK
    config = GenerationConfig(**DEFAULTS.settings() | stated)
    if config.do_sample and config.temperature == 0:
        if asked.get("do_sample"):
            warnings.warn("temperature=0 is greedy decoding: do_sample=True is ignored", stacklevel=4)
        config.do_sample = False
    for names, sense, wish in DEPENDENT:
        idle = [n for n in names if asked.get(n) not in (None, False, getattr(DEFAULTS, n))]
        if idle and not sense(config):
            verb = "has" if len(idle) == 1 else "have"
            warnings.warn(f"{', '.join(idle)} {verb} no effect without {wish}", UserWarning, stacklevel=4)
    _check_together(config)
    return config


def _reads_at_once(settings: dict[str, Any]) -> bool:
    """Return whether prompts are better read as a whole, or must be.

    Recorded states are those of whole prompts, and queries are compared with all positions that a static
    cache has room for, unless it is empty.
    """
    states = settings.get("output_attentions") or settings.get("output_hidden_states")
    records = settings.get("return_dict_in_generate") and states
    is_static = settings.get("cache_implementation") == "static"
    return bool(settings.get("use_cache") is False or is_static or records)


def settings_of(config: Any) -> dict[str, Any]:
    """Return the fields that a config sets.

    Args:
        config: here or of transformers; None: there is no such config.

    Raises:
        ValueError: as in `GenerationConfig`.
    """
    if config is None:
        return {}
    own = config if isinstance(config, GenerationConfig) else GenerationConfig.from_dict(config.to_dict())
    own.validate()
    return own.settings()


def _check_names(arguments: dict[str, Any]) -> None:
    unknown = [name for name in arguments if name not in (*FIELDS, *FOREIGN)]
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
