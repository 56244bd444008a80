"""Layers of one part: a recurrence, attention, an MLP or experts; and the rule of files that state which."""

from typing import Any

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.blocks.layer_kinds import FULL, LINEAR
from torchgguf.models.core.config_map import Header, Rule, largest_dimension, tensor_count

MLP_ALONE, EXPERTS_ALONE = "mlp", "moe"
_HEADS, _SIZES = "attention.head_count_kv", "feed_forward_length"


class MixerKinds(Rule):
    """The kind of each layer, by its number of key/value heads and the size of its MLP or its experts.

    A layer with a size is an MLP, or experts if there are any; one with heads is attention; one with neither
    is a recurrence. This becomes the fields `layers_block_type`, `num_key_value_heads` and
    `intermediate_size` or `moe_intermediate_size`.
    """

    keys = (_HEADS, _SIZES)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the kinds, and the one number of heads and the one size of layers that have them."""
        all_layers = header.get("block_count", 0)
        layers = all_layers - header.get("nextn_predict_layers", 0)
        if not 0 < layers <= all_layers <= tensor_count(header):
            return {}  # the rule of that key refuses it
        heads, sizes = (_numbers(header, key, all_layers)[:layers] for key in self.keys)
        mapped, field = (
            (EXPERTS_ALONE, "moe_intermediate_size")
            if header.get("expert_count", 0)
            else (MLP_ALONE, "intermediate_size")
        )
        kinds = [mapped if size else FULL if n else LINEAR for n, size in zip(heads, sizes, strict=True)]
        stated: dict[str, Any] = {"layers_block_type": kinds, "num_key_value_heads": _one(_HEADS, heads)}
        if (size := _one(_SIZES, sizes)) is not None:
            if size > (limit := largest_dimension(header)):
                raise GGUFError(f"{_SIZES} must be at most {limit}, got {size}")
            stated[field] = size
        return stated

    def write(self, config: Any) -> dict[str, Any]:
        """Write both numbers of each layer."""
        kinds = config.layers_block_type
        if {MLP_ALONE, EXPERTS_ALONE} <= {*kinds}:
            raise ValueError("GGUF does not support layers of MLPs beside layers of experts")
        sizes = {MLP_ALONE: config.intermediate_size, EXPERTS_ALONE: config.moe_intermediate_size}
        return {
            _HEADS: [config.num_key_value_heads if kind == FULL else 0 for kind in kinds],
            _SIZES: [sizes.get(kind, 0) for kind in kinds],
        }


def _numbers(header: Header, key: str, layers: int) -> list[int]:
    """Return a number for each layer."""
    stated = header.values.get(key, 0)
    numbers = stated if isinstance(stated, list) else [stated] * layers
    if len(numbers) != layers or any(type(number) is not int or number < 0 for number in numbers):
        raise GGUFError(f"{key} must be {layers} integers, 0 or above, got {brief(stated)}")
    return numbers


def _one(key: str, numbers: list[int]) -> int | None:
    """Return the one number that is not 0; None: all are 0."""
    if len(others := {*numbers} - {0}) > 1:
        raise GGUFError(f"{key} must be 0 or the same in all layers, got {brief(numbers)}")
    return next(iter(others), None)
