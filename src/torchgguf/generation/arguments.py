"""Arguments of transformers' `generate` that there is nothing to do for, unless they ask for something."""

from __future__ import annotations

from typing import Any

# The argument, and the values that ask for nothing. None is another such value of each.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "assistant_model": (False,),
    "assistant_tokenizer": (False,),
    "custom_generate": (),
    "decoder_inputs_embeds": (),
    "head_mask": (),
    "labels": (),
    "negative_prompt_attention_mask": (),
    "negative_prompt_ids": (),
    "return_legacy_cache": (False,),
    "synced_gpus": (False,),
}
# These do not change what is generated: which logits a forward returns, in which form, and where it starts.
_WITHOUT_EFFECT = (
    "cache_position",
    "logits_to_keep",
    "output_router_logits",
    "return_dict",
    "trust_remote_code",
    "use_model_defaults",
)


def without_neutral(arguments: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of a call without those that ask for nothing.

    Args:
        arguments: by name.
        known: names of those that have a meaning here, whatever their values.

    Raises:
        ValueError: one of them asks for what is not supported.
    """
    left = {}
    for name, value in arguments.items():
        if name in known:
            left[name] = value
        elif name in _WITHOUT_EFFECT or value is None:
            continue
        elif name in _REFUSED:
            if not any(value is neutral for neutral in _REFUSED[name]):
                raise ValueError(f"{name} is not supported: leave it out")
        else:
            left[name] = value
    return left
