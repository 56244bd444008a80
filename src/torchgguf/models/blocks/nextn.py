"""Blocks that predict further tokens at once (multi-token prediction): kept in files, not run.

Files store them as further layers, after those that run; `nextn_predict_layers` counts them.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models.core.config_map import Field, Header, Rule, tensor_count
from torchgguf.models.core.weight_map import Row

_COUNT = "nextn_predict_layers"
_SEPARATE, _FURTHER = re.compile(r"mtp\.layers\.(\d{1,6})\.(.+)"), re.compile(r"layers\.(\d{1,6})\.(.+)")
# Modules around the first block's layer, in checkpoints that store blocks apart, and as parts of a layer.
_AROUND = {
    "mtp.fc": "eh_proj",
    "mtp.pre_fc_norm_embedding": "enorm",
    "mtp.pre_fc_norm_hidden": "hnorm",
    "mtp.norm": "shared_head.norm",
}

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


@dataclass(frozen=True)
class SeparateLayers(LayerCounts):
    """The same for checkpoints that store these blocks apart, as `mtp`, whether or not configs count them.

    The modules before and after the first block's layer are no part of a layer there.
    """

    none_is_stated: bool = False

    def complete(self, config: Any, names: Collection[str]) -> None:
        """Count the blocks in the checkpoint: transformers leaves them out when it saves a model."""
        found = [int(layer[1]) for name in names if (layer := _SEPARATE.fullmatch(name))]
        setattr(config, self.others, max(found, default=-1) + 1)

    def in_models(self, name: str, config: Any) -> str:
        """Return the name of a tensor of a block as that of a further layer."""
        first = getattr(config, self.name)
        if layer := _SEPARATE.fullmatch(name):
            return f"layers.{first + int(layer[1])}.{layer[2]}"
        module, _, suffix = name.rpartition(".")
        return f"layers.{first}.{_AROUND[module]}.{suffix}" if module in _AROUND else name

    def in_checkpoints(self, name: str, config: Any) -> str | None:
        """Return the name of a tensor of a further layer in checkpoints."""
        layer = _FURTHER.fullmatch(name)
        if layer is None or (number := int(layer[1]) - getattr(config, self.name)) < 0:
            return None
        module, _, suffix = layer[2].rpartition(".")
        around = next((around for around, own in _AROUND.items() if own == module), None)
        return f"mtp.layers.{number}.{layer[2]}" if around is None else f"{around}.{suffix}"


def counting_others(
    rules: Iterable[Rule], kind: type[LayerCounts] = LayerCounts, **options: Any
) -> tuple[Rule, ...]:
    """Return the rules of a decoder, with `LayerCounts` in place of the rule for the number of layers."""
    counts = kind(**options)
    return tuple(counts if counts.key in rule.keys else rule for rule in rules)
