"""The rule for sizes that differ by kind of layer: those of Gemma 4."""

from typing import Any

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.core.config_map import Header, Rule, by_layer
from torchgguf.models.core.layer_values import is_integers


class LayerSizes(Rule):
    """Sizes that differ by kind of layer: of heads, of MLPs, and the number of heads of keys."""

    _sizes = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    _heads, _mlp = "attention.head_count_kv", "feed_forward_length"
    keys = (*_sizes, *(f"{key}_swa" for key in _sizes), _heads, _mlp)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the sizes."""
        fields = {"global_head_dim": self._size(header, ""), "head_dim": self._size(header, "_swa")}
        pattern = header.values.get("attention.sliding_window_pattern")
        kinds = [bool(windowed) for windowed in pattern] if isinstance(pattern, list) else []
        windowed, full = self._by_kind(header, self._heads, kinds)
        fields["num_key_value_heads"] = full if windowed is None else windowed
        if windowed not in (None, full):
            fields["num_global_key_value_heads"] = full
        shared = header.get("attention.shared_kv_layers", 0)
        layers = header.get("block_count", 0)
        narrow, wide = self._by_kind(header, self._mlp, [i < layers - shared for i in range(layers)])
        if narrow not in (None, wide) and wide != 2 * narrow:
            raise GGUFError(f"{self._mlp} must double in layers without keys, got {narrow} and {wide}")
        fields["intermediate_size"] = wide if narrow is None else narrow
        return {**fields, "use_double_wide_mlp": narrow not in (None, wide)}

    def _size(self, header: Header, end: str) -> int:
        """Return the size of the heads of one kind of layer."""
        first = f"{self._sizes[0]}{end}"
        size: int = header.positive(first, int)
        for key in (f"{key}{end}" for key in self._sizes):
            if key in header.values and header.values[key] != size:
                raise GGUFError(f"{key} must be {first}, {size}, got {brief(header.values[key])}")
        return size

    @staticmethod
    def _by_kind(header: Header, key: str, kinds: list[bool]) -> tuple[int | None, int]:
        """Return the number of layers of the first kind, or None, and that of the others."""
        value = header.values.get(key)
        if not isinstance(value, list):
            value = header.positive(key, int)
            numbers: list[set[Any]] = [set(), {value}]
        else:
            if len(value) != len(kinds) or not is_integers(value):
                raise GGUFError(f"{key} must be one number or {len(kinds)}, got {len(value)}: {brief(value)}")
            pairs = [*zip(value, kinds, strict=True)]
            numbers = [{number for number, kind in pairs if kind is which} for which in (True, False)]
        limit = header.largest_dimension
        if any(len(each) > 1 for each in numbers) or not all(
            0 < number <= limit for each in numbers for number in each
        ):
            raise GGUFError(f"{key} must be from 1 to {limit}, and equal in layers of a kind: {brief(value)}")
        first, second = (next(iter(each), None) for each in numbers)
        return first, second if second is not None else first  # type: ignore[return-value]  # one is stated

    def write(self, config: Any) -> dict[str, Any]:
        """Write the sizes."""
        layers = [config.of_layer(i) for i in range(config.num_hidden_layers)]
        key_heads: Any = config.num_key_value_heads
        if config.num_global_key_value_heads is not None:
            key_heads = by_layer(layer.num_key_value_heads for layer in layers)
        mlp: Any = config.intermediate_size
        if config.use_double_wide_mlp:
            mlp = by_layer(layer.intermediate_size for layer in layers)
        return {
            **dict.fromkeys(self._sizes, config.global_head_dim),
            **dict.fromkeys((f"{key}_swa" for key in self._sizes), config.head_dim),
            self._heads: key_heads,
            self._mlp: mlp,
        }
