"""`GatedDeltaModel`: layers of the gated delta rule, and of gated attention."""

from typing import Any, ClassVar

from torch import nn

from torchgguf.models.blocks.attention import GatedAttention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.gated_delta.config import GatedDeltaConfig
from torchgguf.models.blocks.gated_delta.mixers import GatedDeltaNet, SeparateGatedDeltaNet
from torchgguf.models.blocks.gemma.unit_offset import unit_offset_norm
from torchgguf.models.blocks.layer_kinds import LINEAR
from torchgguf.models.blocks.mlp import MLP
from torchgguf.nn import UnitOffsetRMSNorm


class GatedDeltaModel(DecoderModel):
    """The model without a head; norms have a unit offset.

    Attributes:
        mixer_class: of the layers without attention.
    """

    mixer_class: ClassVar[type[GatedDeltaNet]] = SeparateGatedDeltaNet

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return unit_offset_norm(config)

    def make_layer(self, config: GatedDeltaConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with one of the two mixers."""
        assert config.layer_types is not None
        mixer: nn.Module
        if config.layer_types[layer_idx] == LINEAR:
            mixer = self.mixer_class(config, layer_idx)
        else:
            mixer = GatedAttention(config, layer_idx, bias=config.attention_bias, qk_norm=UnitOffsetRMSNorm)
        return DecoderLayer(config, mixer, self.make_mlp(config, layer_idx), unit_offset_norm)

    def make_further_layer(self, config: GatedDeltaConfig) -> DecoderLayer:
        """Make the layer of a block that predicts further tokens, which has a cache of its own."""
        attention = GatedAttention(config, 0, bias=config.attention_bias, qk_norm=UnitOffsetRMSNorm)
        mlp = self.make_mlp(config, config.num_hidden_layers)
        return DecoderLayer(config, attention, mlp, unit_offset_norm)

    def make_mlp(self, config: Any, layer_idx: int) -> nn.Module:
        """Create the MLP of a layer."""
        return MLP(config)
