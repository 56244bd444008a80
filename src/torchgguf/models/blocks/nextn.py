"""Blocks that predict further tokens at once (multi-token prediction): kept in files, not run.

Files store them as further layers, after those that run; `nextn_predict_layers` counts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models.core.config_map import Field, Header, Rule, tensor_count
from torchgguf.models.core.weight_map import Row

_COUNT = "nextn_predict_layers"

NEXTN = tuple(
    Row(f"blk.{{}}.nextn.{gguf}", f"layers.{{}}.{hf}")
    for gguf, hf in (
        ("eh_proj", "eh_proj"),
        ("embed_tokens", "embed_tokens"),
        ("enorm", "enorm"),
        ("hnorm", "hnorm"),
        ("shared_head_head", "shared_head.head"),
        ("shared_head_norm", "shared_head.norm"),
    )
)


@dataclass(frozen=True)
class LayerCounts(Field):
    """Maps the number of all layers to that of the layers that run, and the number of the others to a field.

    Attributes:
        others: the field that counts the layers that do not run.
        counted: whether files made from checkpoints count and contain them.
        none_is_stated: whether files state their number even if it is zero.
    """

    key: str = "block_count"
    name: str = "num_hidden_layers"
    limit: Any = tensor_count
    others: str = "num_nextn_predict_layers"
    counted: bool = True
    none_is_stated: bool = True
    keys: Any = field(init=False)

    def __post_init__(self) -> None:
        """Set the keys."""
        object.__setattr__(self, "keys", (self.key, _COUNT))

    def read(self, header: Header) -> dict[str, Any]:
        """Read both numbers."""
        layers = super().read(header)[self.name]
        if not 0 <= (others := header.get(_COUNT, 0)) < layers:
            raise GGUFError(f"{_COUNT} must be from 0 to {layers - 1}, below {self.key}, got {others}")
        return {self.name: layers - others, self.others: others}

    def write(self, config: Any) -> dict[str, Any]:
        """Write both numbers."""
        layers = getattr(config, self.name)
        if not self.counted:
            return {self.key: layers}
        others = getattr(config, self.others)
        stated = {_COUNT: others} if others or self.none_is_stated else {}
        return {self.key: layers + others, **stated}

    def is_kept(self, config: Any, layer_idx: int, name: str, in_new: bool) -> bool:
        """Return whether models keep a layer, but do not run it, as in `Architecture.is_kept`."""
        layers: int = getattr(config, self.name)
        others: int = getattr(config, self.others)
        return (self.counted or not in_new) and layers <= layer_idx < layers + others


def counting_others(rules: Iterable[Rule], **options: Any) -> tuple[Rule, ...]:
    """Return the rules of a decoder, with `LayerCounts` in place of the rule for the number of layers."""
    counts = LayerCounts(**options)
    return tuple(counts if counts.key in rule.keys else rule for rule in rules)
