"""Rotary embedding of Gemma's models since the third: layers with a window rotate by another base."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks.decoder import DecoderModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.rope_rule import FACTORS, Rope, part_of_head
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.windows import SLIDING
from torchgguf.models.core.config_map import Header
from torchgguf.nn import RotaryEmbedding, Rotation
from torchgguf.nn.rotary import PROPORTIONAL, proportional_rotations

_LOCAL_BASE = "rope.freq_base_swa"
_NO_ROTATION = 1e30  # divides the frequencies that are zero, in files


class TwoBasesRope(Rope):
    """Rotary embedding of both kinds of layers: scaling applies to those that see all positions.

    Args:
        config_class: its `default_thetas` are the bases of files that state none.
    """

    keys = (*Rope.keys, _LOCAL_BASE)

    def __init__(self, config_class: type[RotaryConfig]) -> None:
        assert config_class.default_thetas is not None
        self._bases = config_class.default_thetas

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling and both bases."""
        parameters = super().read(header)["rope_parameters"]
        if "rope.freq_base" not in header.values:
            parameters["rope_theta"] = self._bases[FULL]
        stated = _LOCAL_BASE in header.values
        local = header.positive(_LOCAL_BASE, float) if stated else self._bases[SLIDING]
        return {"rope_parameters": {FULL: parameters, SLIDING: {"rope_type": "default", "rope_theta": local}}}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the other base."""
        local = config.rope_parameters[SLIDING]
        if local["rope_type"] != "default":
            raise ValueError(
                f"GGUF does not support rope_type {local['rope_type']!r} of layers with a window"
            )
        return {**super().write(_full(config)), _LOCAL_BASE: float(local["rope_theta"])}

    def write_tensors(self, config: Any) -> dict[str, Tensor]:
        """Write the divisors of the frequencies, if there are any."""
        return super().write_tensors(_full(config))


def _full(config: Any) -> SimpleNamespace:
    """Return what the rule for one kind of layer reads."""
    return SimpleNamespace(rope_parameters=config.rope_parameters[FULL], head_dim=config.head_dim)


class ProportionalRope(TwoBasesRope):
    """Rotary embedding of both kinds of layers: proportional in those that see all positions.

    Files contain divisors of the frequencies: 1, then numbers that make all lower ones zero.
    """

    def read(self, header: Header) -> dict[str, Any]:
        """Read both bases, and the part of the frequencies that is not zero."""
        others = {name: info for name, info in header.tensors.items() if name != FACTORS}
        fields = super().read(replace(header, tensors=others))
        parameters = fields["rope_parameters"][FULL]
        if parameters["rope_type"] != "default" or FACTORS not in header.tensors:
            raise GGUFError(f"{FACTORS} is missing, or rope.scaling.type is stated: both are unsupported")
        size = header.positive("attention.key_length", int)
        factors = header.numbers(FACTORS, size // 2)
        rotations = int((factors == 1).sum())
        if not torch.equal(factors, _divisors(rotations, size)):
            raise GGUFError(f"{FACTORS} must contain numbers that are 1, and then only {_NO_ROTATION:g}")
        parameters |= {"rope_type": PROPORTIONAL, "partial_rotary_factor": part_of_head(2 * rotations, size)}
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write both bases."""
        parameters = config.rope_parameters[FULL]
        if parameters["rope_type"] != PROPORTIONAL or parameters.get("factor", 1.0) != 1.0:
            raise ValueError(f"GGUF does not support rope_parameters[{FULL!r}]={parameters}")
        return super().write(_with_plain_full(config))

    def write_tensors(self, config: Any) -> dict[str, Tensor]:
        """Write the divisors."""
        size = config.global_head_dim
        return {FACTORS: _divisors(proportional_rotations(config.rope_parameters[FULL], size), size)}


def _with_plain_full(config: Any) -> SimpleNamespace:
    plain = {"rope_type": "default", "rope_theta": config.rope_parameters[FULL]["rope_theta"]}
    rope_parameters = {**config.rope_parameters, FULL: plain}
    return SimpleNamespace(rope_parameters=rope_parameters, head_dim=config.global_head_dim)


def _divisors(rotations: int, head_dim: int) -> Tensor:
    return torch.tensor([1.0] * rotations + [_NO_ROTATION] * (head_dim // 2 - rotations))


class TwoRotationsModel(DecoderModel):
    """A decoder whose layers rotate by their kind: with a window, or without."""

    def head_size(self, config: Any, kind: str) -> int:
        """Return the size of a head in layers of a kind."""
        size: int = config.head_dim
        return size

    def make_rotary(self, config: Any) -> nn.Module:
        """Create the modules that compute the angles, by kind of layer."""
        return nn.ModuleDict(
            {
                kind: RotaryEmbedding(config.rope_parameters[kind], self.head_size(config, kind))
                for kind in sorted({*config.layer_types})
            }
        )

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the new positions, once for each kind of layer."""
        assert isinstance(self.rotary_emb, nn.ModuleDict)
        return {kind: rotary(position_ids, dtype) for kind, rotary in self.rotary_emb.items()}
