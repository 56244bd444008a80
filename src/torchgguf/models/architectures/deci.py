"""DeciLM and Llama-Nemotron (Bercovich et al. 2024, arXiv 2411.19146): Llamas whose layers differ in size.

A search over layers chose for each of them the number of key/value heads and the size of the MLP; it replaced
attention by one matrix in some, and removed attention, the MLP or both from others. transformers has no such
class: the checkpoints contain code, which is not run. Parameters have Llama's names.

llama.cpp also leaves out the attention of a layer without an MLP; here it is computed, as by that code.
"""

import copy
from typing import Any

from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Rule, largest_dimension
from torchgguf.nn import Linear

# Keys of files that contain one number, or one for each layer, with the fields for both.
_SIZES = {
    "attention.head_count": ("num_attention_heads", "num_attention_heads_per_layer"),
    "attention.head_count_kv": ("num_key_value_heads", "num_key_value_heads_per_layer"),
    "feed_forward_length": ("intermediate_size", "intermediate_size_per_layer"),
}


@config_dataclass
class DeciLMConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `num_attention_heads_per_layer`, `num_key_value_heads_per_layer` and `intermediate_size_per_layer` contain
    a number for each layer; None: all layers are alike. A layer without key/value heads has one matrix in
    place of attention; one without any heads has neither; one whose size is 0 has no MLP.
    """

    model_type = "deci"

    intermediate_size: int = 14336
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    num_attention_heads_per_layer: list[int] | None = None
    num_key_value_heads_per_layer: list[int] | None = None
    intermediate_size_per_layer: list[int] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Derive the largest sizes, and check those of each layer."""
        for common, each in _SIZES.values():
            if (sizes := getattr(self, each)) is not None:
                if len(sizes) != self.num_hidden_layers or min(sizes, default=0) < 0:
                    raise ValueError(
                        f"{each} must have one number, 0 or above, for each of {self.num_hidden_layers} "
                        f"layers, got {brief(sizes)}"
                    )
                setattr(self, common, max(sizes))
        super().__post_init__(*legacy)
        for i in range(self.num_hidden_layers):
            layer = self.of_layer(i)
            if layer.num_key_value_heads and layer.num_attention_heads % layer.num_key_value_heads:
                raise ValueError(
                    f"layer {i} must have a multiple of its {layer.num_key_value_heads} key/value heads, "
                    f"got {layer.num_attention_heads} attention heads"
                )

    @property
    def layers_with_tensors(self) -> int:
        """The number of layers that have parameters."""
        layers = map(self.of_layer, range(self.num_hidden_layers))
        return sum(layer.num_attention_heads > 0 or layer.intermediate_size > 0 for layer in layers)

    def of_layer(self, layer_idx: int) -> "DeciLMConfig":
        """Return a copy whose sizes are those of a layer."""
        layer = copy.copy(self)
        for common, each in _SIZES.values():
            if (sizes := getattr(self, each)) is not None:
                setattr(layer, common, sizes[layer_idx])
        return layer


class SizesByLayer(Rule):
    """Numbers of heads and sizes of MLPs: one number if all layers are alike, otherwise a list."""

    keys = tuple(_SIZES)

    def read(self, header: Header) -> dict[str, Any]:
        """Read one number, or one for each layer, bounded by the largest dimension of a tensor."""
        fields: dict[str, Any] = {}
        layers, largest = header.get("block_count", 0), largest_dimension(header)
        for key, (common, each) in _SIZES.items():
            sizes = header.values.get(key)
            if not isinstance(sizes, list):
                fields[common] = header.positive(key, int)
            elif len(sizes) != layers or any(
                type(n) is not int or n not in range(largest + 1) for n in sizes
            ):
                raise GGUFError(f"{key} must be {layers} integers, 0 to {largest}, got {brief(sizes)}")
            else:
                fields |= {common: max(sizes), each: sizes}
        if fields[_SIZES["feed_forward_length"][0]] > largest:
            raise GGUFError(f"feed_forward_length must be at most {largest}")
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the list if there is one."""
        named = _SIZES.items()
        return {key: getattr(config, each) or getattr(config, common) for key, (common, each) in named}


DECI = Architecture(
    gguf="deci",
    config_class=DeciLMConfig,
    rules=(
        *(rule for rule in tables.DECODER_RULES if not {*rule.keys} & {*_SIZES}),
        SizesByLayer(),
        NO_WINDOW,
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.INTERLEAVED_ATTENTION, *tables.GATED_MLP),
)


class OneMatrix(nn.Module):
    """What replaces attention: a matrix, by the name of the last one of attention, as in files."""

    layer_name = "self_attn"

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.o_proj = Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        output: Tensor = self.o_proj(x)
        return output


class DeciLMModel(DecoderModel, architecture=DECI):
    """DeciLM without a head."""

    def make_layer(self, config: DeciLMConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer of its own size, which may lack attention, the MLP or both."""
        config = config.of_layer(layer_idx)
        mixer: nn.Module | None = None
        if config.num_key_value_heads:
            mixer = Attention(config, layer_idx)
        elif config.num_attention_heads:
            mixer = OneMatrix(config.hidden_size)
        return DecoderLayer(config, mixer, MLP(config) if config.intermediate_size else None)


class DeciLMForCausalLM(heads.ForCausalLM, base=DeciLMModel): ...
