"""Conditions for the type of a tensor: its position in the model, and named conditions on that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torchgguf.quants import QuantType, quant_type


@dataclass(frozen=True)
class ModelFacts:
    """The properties of a model that types depend on.

    Attributes:
        architecture: `general.architecture` of its file.
        layers: the number of layers, including those that predict further tokens.
        nextn_layers: the number of layers that predict further tokens.
        experts: the number of experts in a layer; 0 in a dense model.
        heads: the number of attention heads in the first layer.
        kv_heads: the number of key/value heads in the first layer.
    """

    architecture: str = ""
    layers: int = 0
    nextn_layers: int = 0
    experts: int = 0
    heads: int = 0
    kv_heads: int = 0

    @property
    def shares_heads(self) -> bool:
        """Whether four or more heads share keys and values; the key and value matrices are then small."""
        return self.kv_heads > 0 and self.heads // self.kv_heads >= 4


class TensorPlace(NamedTuple):
    """The position of a tensor in a model.

    Attributes:
        model: the model.
        layer: the index of the layer.
        layers: the number of layers.
        before: the number of earlier tensors with the same role; a layer of experts may have several.
        matrices: the number of matrices in the tensor, one for each expert.
        has_imatrix: whether there is an importance matrix.
    """

    model: ModelFacts
    layer: int
    layers: int
    before: int
    matrices: int
    has_imatrix: bool


def _more_bits(at: TensorPlace) -> bool:
    """Return whether a layer is in the first or last eighth, or every third one between."""
    eighth = at.layers // 8
    return at.layer < eighth or at.layer >= 7 * at.layers // 8 or (at.layer - eighth) % 3 == 2


CONDITIONS: dict[str, Callable[[TensorPlace], bool]] = {
    "first_two": lambda at: at.layer < 2,
    "first_four": lambda at: at.layer < 4,
    "first_sixteenth": lambda at: at.layer < at.layers // 16,
    "first_eighth": lambda at: at.layer < at.layers // 8,
    "first_eighth_by_count": lambda at: at.before < at.layers // 8,
    "middle": lambda at: at.layers // 8 <= at.layer < 7 * at.layers // 8,
    "more_bits": _more_bits,
    "imatrix": lambda at: at.has_imatrix,
    "no_imatrix": lambda at: not at.has_imatrix,
    "shared_heads": lambda at: at.model.shares_heads,
    "small_attention": lambda at: at.model.shares_heads or at.model.experts >= 4,
    "stacked": lambda at: at.matrices > 1,
}


class Case(NamedTuple):
    """A type, and the conditions for choosing it: all must be true."""

    type: QuantType
    conditions: tuple[str, ...]

    def holds(self, at: TensorPlace) -> bool:
        """Return whether all conditions are true."""
        return all(CONDITIONS[name](at) for name in self.conditions)


Cases = tuple[Case, ...]


def cases(**roles: str) -> dict[str, Cases]:
    """Parse the cases of roles, in the notation of the recipe table."""
    return {role: tuple(map(_case, text.split())) for role, text in roles.items()}


def _case(text: str) -> Case:
    type_name, _, conditions = text.partition(":")
    names = conditions.split("&") if conditions else []
    if unknown := set(names) - CONDITIONS.keys():
        raise ValueError(f"{text!r}: unknown condition {min(unknown)!r}")
    return Case(quant_type(type_name), tuple(names))
