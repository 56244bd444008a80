"""What the type of a tensor may depend on: its place in the model, and conditions of that by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torchgguf.quants import QuantType, quant_type


@dataclass(frozen=True)
class ModelFacts:
    """What types depend on of a model.

    Attributes:
        architecture: `general.architecture` of its file.
        layers: those that predict further tokens included.
        nextn_layers: how many these are.
        experts: of a layer; none in a dense model.
        heads, kv_heads: of the first layer.
    """

    architecture: str = ""
    layers: int = 0
    nextn_layers: int = 0
    experts: int = 0
    heads: int = 0
    kv_heads: int = 0

    @property
    def shares_heads(self) -> bool:
        """Whether four heads or more share keys and values, whose matrices are small then."""
        return self.kv_heads > 0 and self.heads // self.kv_heads >= 4


class TensorPlace(NamedTuple):
    """Where in a model a tensor is.

    Attributes:
        model: the model.
        layer: in which layer.
        layers: of how many.
        before: how many tensors come before it in the same role; a layer of experts has several.
        matrices: in the tensor, one an expert.
        has_imatrix: whether importances are known.
    """

    model: ModelFacts
    layer: int
    layers: int
    before: int
    matrices: int
    has_imatrix: bool


def _more_bits(at: TensorPlace) -> bool:
    """The first and the last eighth, and every third of the layers between."""
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
    """A type, and the conditions under which it is taken: all must hold."""

    type: QuantType
    conditions: tuple[str, ...]

    def holds(self, at: TensorPlace) -> bool:
        """Tell whether they do."""
        return all(CONDITIONS[name](at) for name in self.conditions)


Cases = tuple[Case, ...]


def cases(**roles: str) -> dict[str, Cases]:
    """Read the cases of roles, as a recipe's line has them."""
    return {role: tuple(map(_case, text.split())) for role, text in roles.items()}


def _case(text: str) -> Case:
    type_name, _, conditions = text.partition(":")
    names = conditions.split("&") if conditions else []
    if unknown := set(names) - CONDITIONS.keys():
        raise ValueError(f"{text!r} has no condition {min(unknown)!r} to go by")
    return Case(quant_type(type_name), tuple(names))
