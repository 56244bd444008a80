"""Decoders of attention and MLPs by Llama's names: the base of architectures that transformers lacks.

Files of such an architecture are all that describes it. Which layers have biases follows from their tensors.
"""

from typing import Any

from torch import nn

from torchgguf.models.blocks import tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Harmless, Implied

# Rules for the fields of `PlainDecoderConfig` beyond those of all decoders.
BIAS_RULES = (
    Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
    Implied("attention_out_bias", tables.in_first_layer("attn_output.bias")),
    Implied("mlp_bias", tables.in_first_layer("ffn_down.bias")),
    Harmless(("tensor_data_layout",)),  # states the order of rows in queries and keys: that of the rows below
)
PLAIN_RULES = (*tables.DECODER_RULES, *BIAS_RULES)
PLAIN_ROWS = (*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.GATED_MLP)
# For files that store rows of queries and keys in the order of interleaved rotary embedding.
INTERLEAVED_ROWS = (
    *tables.STREAM,
    *tables.PRE_NORMS,
    *tables.INTERLEAVED_ATTENTION,
    *tables.GATED_MLP,
)


@config_dataclass
class PlainDecoderConfig(DecoderConfig):
    """Fields of all decoders, and which layers have biases: queries, keys and values; outputs; MLPs."""

    attention_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False


class PlainDecoderModel(DecoderModel):
    """A decoder whose layers contain attention and a gated MLP, unless subclasses replace them.

    `make_norm` creates the norms of layers, too.
    """

    def make_layer(self, config: Any, layer_idx: int) -> nn.Module:
        """Make a layer of attention and an MLP."""
        attention, mlp = self.make_attention(config, layer_idx), self.make_mlp(config, layer_idx)
        return DecoderLayer(config, attention, mlp, self.make_norm)

    def make_attention(self, config: Any, layer_idx: int) -> nn.Module:
        """Make the attention of a layer."""
        window, bias = config.window_of(layer_idx), config.attention_bias
        return Attention(config, layer_idx, window, bias=bias, output_bias=config.attention_out_bias)

    def make_mlp(self, config: Any, layer_idx: int) -> nn.Module:
        """Make the MLP of a layer."""
        return MLP(config, bias=config.mlp_bias)
