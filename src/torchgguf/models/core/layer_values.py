"""Values of metadata for each layer: checked before rules read them, and one number where all are equal."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from torchgguf.container import GGUFError
from torchgguf.models.core.config_map import RECURRENT_LAYERS, Header, tensor_count

_LAYERS, _HEADS = "block_count", "attention.head_count"
# Keys that may contain one number for each layer, as in llama.cpp.
_PER_LAYER = (_HEADS, "attention.head_count_kv", "feed_forward_length", "expert_feed_forward_length")


def is_integers(value: Any) -> TypeGuard[list[int]]:
    """Return whether a value is a list of integers; files may contain lists of lists, which have no hash."""
    return isinstance(value, list) and all(type(each) is int for each in value)


def check_layers(header: Header) -> None:
    """Refuse more layers than tensors before any rule reserves memory for each layer.

    Raises:
        GGUFError: there are more.
    """
    layers, limit = header.values.get(_LAYERS), tensor_count(header)
    if type(layers) is int and layers > limit:
        raise GGUFError(f"{_LAYERS} = {layers} is invalid: the {tensor_count.__name__} is {limit}")


def with_equal_layers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an architecture's keys, with one number where each layer has the same, or has no attention."""
    layers, merged = values.get(_LAYERS), dict(values)
    heads, recurrent = values.get(_HEADS), values.get(RECURRENT_LAYERS)
    if is_integers(heads) and isinstance(recurrent, list) and any(recurrent):
        without = {number for number, is_recurrent in zip(heads, recurrent, strict=False) if is_recurrent}
        if without == {0} and len(numbers := {*heads} - without) == 1:
            merged[_HEADS] = numbers.pop()
    for key in _PER_LAYER:
        number = values.get(key)
        if is_integers(number) and len(number) == layers and number == number[:1] * layers:
            merged[key] = number[0]
    return merged
