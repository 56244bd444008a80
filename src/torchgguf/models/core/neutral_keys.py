"""Metadata keys that files of every architecture may state, with the values that change nothing.

llama.cpp's own writer (llama-model-saver.cpp) states all of its parameters in each file: most are 0, others
repeat a size, and keys of rotary embedding are there without a rotation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gguf
import numpy as np

from torchgguf.models.core.pooling import POOLING_NAMES

# The keys after the name of the architecture, as the format lists them.
_KNOWN = frozenset(
    value.removeprefix("{arch}.")
    for group in vars(gguf.Keys).values()
    if isinstance(group, type)
    for value in vars(group).values()
    if isinstance(value, str) and value.startswith("{arch}.")
)
# Beginnings of keys that newer versions of llama.cpp write.
_KNOWN_BEGINNINGS = (
    *("attention.compress_", "attention.indexer.", "attention.key_length_mla", "attention.kv_lora_rank"),
    *("attention.output_", "attention.recurrent_", "attention.value_length_mla", "attention.value_scale"),
    *("attn_res.", "dense_2_", "dense_3_", "embedding_length_per_layer", "expert_", "hash_layer_", "hrm."),
    *("hyper_connection.", "kda.", "ple.", "rescale_", "residual_scale", "ssm.", "swin_norm", "time_"),
    *("token_shift_", "wkv."),
)
# Keys for which 0 is a choice, not the absence of one.
_ZERO_COUNTS = frozenset({"attention.causal"})
# The number that stands for "no token" and for "unspecified" in unsigned keys: -1.
_UNSET = 2**32 - 1

Values = Mapping[str, Any]


def _head_size(values: Values) -> Any:
    heads, width = values.get("attention.head_count"), values.get("embedding_length")
    if type(heads) is int and type(width) is int and heads > 0:
        return width // heads
    return None


def _key_length(values: Values) -> Any:
    return values.get("attention.key_length", _head_size(values))


def _value_length(values: Values) -> Any:
    return values.get("attention.value_length", _head_size(values))


def _rotated(values: Values) -> Any:
    return values.get("rope.dimension_count", _key_length(values))


def _scale(values: Values) -> Any:
    size = _key_length(values)
    return float(np.float32(size**-0.5)) if type(size) is int and size > 0 else None


def _windowed(values: Values) -> Any:
    layers = values.get("block_count", 0)
    return [1] * layers if type(layers) is int and values.get("attention.sliding_window", 0) else None


# What a key repeats, given the other values.
_REPEATS: Mapping[str, Callable[[Values], Any]] = {
    "attention.key_length": _head_size,
    "attention.key_length_swa": _key_length,
    "attention.scale": _scale,
    "attention.sliding_window_pattern": _windowed,
    "attention.value_length": _head_size,
    "attention.value_length_swa": _value_length,
    "embedding_length_out": lambda values: values.get("embedding_length"),
    "leading_dense_block_count": lambda values: values.get("block_count"),
    "rope.dimension_count": _key_length,
    "rope.dimension_count_swa": _rotated,
    "rope.freq_base_swa": lambda values: values.get("rope.freq_base"),
}
# Values other than 0 that change nothing: many are what llama.cpp assumes, and writes, whatever the model is.
_ALSO_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention.rope_pattern": (1,),
    "attn_logit_softcapping": (50.0,),
    "decoder_start_token_id": (_UNSET, -1),
    "expert_group_scale": (float(np.float32(0.05)),),
    "expert_weights_scale": (1.0,),
    "final_logit_softcapping": (30.0,),
    "logit_scale": (1.0,),
    "pooling_type": (_UNSET, -1, *range(len(POOLING_NAMES))),  # `core/pooling.py` reads it
    "rope.scaling.attn_factor": (1.0,),
    "router_logit_softcapping": (30.0,),
    "token_shift_count": (2,),
}
# Parts of models that no architecture here has: whatever these state, nothing reads it.
_UNREAD = (
    *(
        "activation.situ_",
        "attention.indexer.kpool_",
        "attention.recurrent_layers",  # repeats the kinds of layers where no rule reads it
        "attn_res.",
        "decoder_block_count",
        "deepstack_mapping",
    ),
    *("hyper_connection.epsilon", "kda.", "xielu."),
)


def _turns_alike(sections: Any, values: Values) -> bool:
    """Return whether all rotated pairs belong to sections that, in texts, have the same position.

    Models of images and videos rotate sections of a head by time, height and width; in texts, all are the
    position. The fourth section, of other things, has none.
    """
    rotated = _rotated(values)
    if type(rotated) is not int or not isinstance(sections, list):
        return False
    return all(type(size) is int and size >= 0 for size in sections) and rotated // 2 <= sum(sections[:3])


def is_neutral(key: str, values: Values, *, has_rotation: bool) -> bool:
    """Return whether a key that no rule of an architecture reads changes nothing.

    Args:
        key: without the name of the architecture.
        values: of all keys of the architecture.
        has_rotation: whether the architecture has rotary embedding.
    """
    value = values[key]
    if key.startswith("rope.") and not has_rotation:
        return True
    if key in _REPEATS and value == _REPEATS[key](values):
        return True
    if key == "rope.dimension_sections" and _turns_alike(value, values):
        return True
    if value in _ALSO_NEUTRAL.get(key, ()) or key.startswith(_UNREAD):
        return True
    known = key in _KNOWN or key.startswith(_KNOWN_BEGINNINGS)
    return known and key not in _ZERO_COUNTS and _is_zero(value)


def _is_zero(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_zero, value))
    return isinstance(value, bool | int | float) and value == 0
