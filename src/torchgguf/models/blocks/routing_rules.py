"""Rules of config maps for the routers of DeepSeek, GLM and their kin: groups, scales, dense first layers."""

from collections.abc import Callable, Sequence
from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models.blocks import tables
from torchgguf.models.core.config_map import (
    Constant,
    Count,
    Harmless,
    Header,
    Rule,
    largest_dimension,
    tensor_count,
)

# Values of `expert_gating_func`: what turns the scores of experts into weights.
SOFTMAX, SIGMOID = 1, 2
GATING = "expert_gating_func"

_GROUPS = {"expert_group_count": "n_group", "expert_group_used_count": "topk_group"}
_SCALE = "expert_weights_scale"


class Groups(Rule):
    """Maps both numbers of groups of experts; in files none or zero groups are one group."""

    keys = tuple(_GROUPS)

    def read(self, header: Header) -> dict[str, Any]:
        """Read both numbers."""
        numbers = {name: header.get(key, 0) or 1 for key, name in _GROUPS.items()}
        limit = largest_dimension(header)
        for key, name in _GROUPS.items():
            if not 0 < numbers[name] <= limit:
                raise GGUFError(f"{key} must be from 0 to {limit}, got {numbers[name]}")
        return numbers

    def write(self, config: Any) -> dict[str, Any]:
        """Write the numbers that the config has."""
        numbers = {key: getattr(config, name) for key, name in _GROUPS.items()}
        return {key: number for key, number in numbers.items() if number is not None}


class WeightScale(Rule):
    """Maps the factor on the weights of experts; in files none or zero is one."""

    keys = (_SCALE,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the factor."""
        return {"routed_scaling_factor": header.positive(_SCALE, float) if header.get(_SCALE, 0.0) else 1.0}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the factor."""
        return {_SCALE: float(config.routed_scaling_factor)}


class Gating(Constant):
    """What turns the scores of experts into weights: a model supports one function. 0 is not stated."""

    def __init__(self, function: int) -> None:
        super().__init__(GATING, function, f"this model supports {function} only")

    def read(self, header: Header) -> dict[str, Any]:
        """Refuse every other function."""
        return super().read(header) if header.get(GATING, 0) else {}


class SharedExpertSize(Harmless):
    """The size of one of the experts that all tokens share: that of the others."""

    def __init__(self) -> None:
        super().__init__(("expert_shared_feed_forward_length",))

    def write(self, config: Any) -> dict[str, Any]:
        """Write the size."""
        return {self.keys[0]: config.moe_intermediate_size}


class WithExperts(Rule):
    """Rules that apply to models with experts only.

    Args:
        rules: the rules.
        has_experts: returns whether a model with a config has experts. Files of such models count them.
    """

    def __init__(self, rules: Sequence[Rule], has_experts: Callable[[Any], bool]) -> None:
        self.keys = tuple(key for rule in rules for key in rule.keys)
        self._rules = rules
        self._has_experts = has_experts

    def read(self, header: Header) -> dict[str, Any]:
        """Return what the rules read, if there are experts."""
        if not header.get("expert_count", 0):
            return {}
        fields: dict[str, Any] = {}
        for rule in self._rules:
            fields |= rule.read(header)
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Return what the rules write, if there are experts."""
        if not self._has_experts(config):
            return {}
        return {key: value for rule in self._rules for key, value in rule.write(config).items()}


# Of models whose first layers have no experts, and whose other layers have experts that all tokens share.
GROUPED_EXPERTS = (
    *tables.expert_rules("n_routed_experts"),
    Groups(),
    WeightScale(),
    Count("expert_shared_count", "n_shared_experts", limit=largest_dimension),
    Count("leading_dense_block_count", "first_k_dense_replace", required=False, limit=tensor_count),
)
