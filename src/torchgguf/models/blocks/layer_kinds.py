"""Kinds of layers: the field `layer_types`, and the rule of files that state them by numbers of heads."""

from collections.abc import Collection, Sequence
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.core.config_map import (
    RECURRENT_LAYERS,
    Field,
    Header,
    largest_dimension,
    tensor_count,
)

FULL, LINEAR = "full_attention", "linear_attention"
_HEADS = "attention.head_count_kv"


def check_layer_types(types: Sequence[str], kinds: Collection[str], layers: int) -> None:
    """Refuse `layer_types` that do not name one of some kinds for each layer.

    Args:
        types: the kinds of the layers.
        kinds: the names of all kinds.
        layers: the number of layers.

    Raises:
        ValueError: they do not.
    """
    if len(types) != layers or any(kind not in kinds for kind in types):
        names = " or ".join(map(repr, kinds))
        raise ValueError(
            f"layer_types must name {names} once for each of {layers} layers, got {brief([*types])}"
        )


class HeadsByLayer(Field):
    """The number of key/value heads of each layer, which is 0 in layers without attention.

    It becomes the fields `layer_types` and `num_key_value_heads`.

    Args:
        other: the kind of the layers without attention.
        attention: the kind of the layers with attention.
    """

    def __init__(self, other: str, attention: str = FULL) -> None:
        super().__init__(_HEADS, "num_key_value_heads", limit=largest_dimension)
        # Some files state the kinds a second time.
        object.__setattr__(self, "keys", (_HEADS, RECURRENT_LAYERS))
        self.other, self.attention = other, attention

    def read(self, header: Header) -> dict[str, Any]:
        """Read the kinds of the layers and the one number of heads of those with attention."""
        layers, stated = header.get("block_count", 0), header.values.get(_HEADS)
        if not 0 < layers <= tensor_count(header):
            return {}  # the rule of that key refuses it
        if stated is None:
            return {"layer_types": [self.attention] * layers, self.name: None}
        heads = stated if isinstance(stated, list) else [stated] * layers
        limit = largest_dimension(header)
        if len(heads) != layers or any(type(each) is not int or not 0 <= each <= limit for each in heads):
            raise GGUFError(f"{_HEADS} must be {layers} integers from 0 to {limit}, got {brief(stated)}")
        if len(numbers := {*heads} - {0}) > 1:
            raise GGUFError(f"{_HEADS} must be 0 or the same in all layers, got {brief(stated)}")
        is_recurrent = [not number for number in heads]
        if (again := header.values.get(RECURRENT_LAYERS, is_recurrent)) != is_recurrent:
            raise GGUFError(f"{RECURRENT_LAYERS} = {brief(again)} contradicts {_HEADS} = {brief(stated)}")
        kinds = [self.attention if number else self.other for number in heads]
        return {"layer_types": kinds, self.name: next(iter(numbers), None)}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number of heads of each layer."""
        heads = config.num_key_value_heads
        return {_HEADS: [heads if kind == self.attention else 0 for kind in config.layer_types]}
