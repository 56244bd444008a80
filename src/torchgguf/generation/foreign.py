"""Settings of transformers that are unsupported, or that there is nothing to do for here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# Fields of transformers' config that change what is generated and are not supported, with the values that ask
# for nothing. None is another such value of each.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (False, 0),
    "cache_config": ({},),
    "constraints": ([],),
    "diversity_penalty": (0.0,),
    "dola_layers": (False, []),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "force_words_ids": ([],),
    "guidance_scale": (1.0,),
    "low_memory": (False,),
    "num_beam_groups": (0, 1),
    "penalty_alpha": (0.0,),
    "speculation_type": (False,),
    "token_healing": (False,),
    "top_h": (False,),
    "use_mtp": (False,),
    "watermarking_config": (False, {}),
}


def asks_for_unsupported(name: str, value: Any) -> bool:
    """Return whether a setting would make transformers generate otherwise than we can."""
    return name in UNSUPPORTED and value is not None and value not in UNSUPPORTED[name]


def refuse_unsupported(values: Mapping[str, Any]) -> None:
    """Raise ValueError that names the settings by which transformers would generate otherwise than we can."""
    for name, value in values.items():
        if asks_for_unsupported(name, value):
            raise ValueError(f"{name}={value!r} is not supported: leave it out")


@dataclass(kw_only=True)
class ForeignSettings:
    """Settings of transformers that there are no fields for here: those in `UNSUPPORTED`, and others.

    The others tune unsupported ways of decoding, or the speed of transformers. They change no text.
    """

    assistant_confidence_threshold: Any = None
    assistant_early_exit: Any = None
    assistant_ensemble_weight: Any = None
    assistant_lookbehind: Any = None
    cache_config: Any = None
    compile_config: Any = None
    constraints: Any = None
    continuous_batching_config: Any = None
    disable_compile: Any = None
    diversity_penalty: Any = None
    dola_layers: Any = None
    encoder_no_repeat_ngram_size: Any = None
    encoder_repetition_penalty: Any = None
    force_words_ids: Any = None
    guidance_scale: Any = None
    is_assistant: Any = None
    low_memory: Any = None
    num_assistant_tokens: Any = None
    num_assistant_tokens_schedule: Any = None
    num_beam_groups: Any = None
    penalty_alpha: Any = None
    speculation_type: Any = None
    target_lookbehind: Any = None
    token_healing: Any = None
    top_h: Any = None
    use_mtp: Any = None
    watermarking_config: Any = None


FOREIGN = tuple(field.name for field in fields(ForeignSettings))
