"""MiniCPM (Hu et al. 2024, arXiv 2404.06395): a Llama with three of Granite's multipliers.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torchgguf.models.architectures.granite import (
    DividedLogits,
    MultipliedDecoder,
    Multipliers,
    StreamMultipliers,
)
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import ScaledResidualLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.plain_decoder import INTERLEAVED_ROWS, PLAIN_RULES
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header


@config_dataclass
class MiniCPMConfig(StreamMultipliers):
    """Fields of all decoders, Granite's multipliers of the stream, and which layers have biases."""

    model_type = "minicpm"

    vocab_size: int = 122753
    hidden_size: int = 2304
    intermediate_size: int = 5760
    num_hidden_layers: int = 40
    num_attention_heads: int = 36
    rms_norm_eps: float = 1e-5
    attention_out_bias: bool = False
    mlp_bias: bool = False


class MiniCPMMultipliers(Multipliers):
    """The multipliers; files of 2024 do not state them, but mean those of MiniCPM-2B."""

    fields: ClassVar[Mapping[str, str]] = {
        key: field for key, field in Multipliers.fields.items() if key != "attention.scale"
    }

    def read(self, header: Header) -> dict[str, Any]:
        """Read the multipliers."""
        width, layers = header.positive("embedding_length", int), header.positive("block_count", int)
        older = {
            "embedding_scale": 12.0,
            "residual_scale": 1.4 / layers**0.5,
            "logit_scale": 256.0 / width,
        }
        return super().read(Header({**older, **header.values}, header.tensors, header.load))


MINICPM = Architecture(
    gguf="minicpm",
    config_class=MiniCPMConfig,
    rules=(*PLAIN_RULES, MiniCPMMultipliers(), NO_WINDOW),
    rows=INTERLEAVED_ROWS,
)


class MiniCPMModel(MultipliedDecoder, architecture=MINICPM):
    """MiniCPM without a head."""

    def make_layer(self, config: MiniCPMConfig, layer_idx: int) -> ScaledResidualLayer:
        """Make a layer that scales what it adds to the stream."""
        bias, output_bias = config.attention_bias, config.attention_out_bias
        attention = Attention(config, layer_idx, bias=bias, output_bias=output_bias)
        return ScaledResidualLayer(config, attention, MLP(config, bias=config.mlp_bias))


class MiniCPMForCausalLM(DividedLogits, base=MiniCPMModel): ...
