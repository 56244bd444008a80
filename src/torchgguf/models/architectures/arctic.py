"""Arctic (Snowflake 2024): an MLP, and beside it experts that read the stream as it enters the layer.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from torchgguf.models.blocks import moe, tables
from torchgguf.models.blocks.decoder import DecoderLayer
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.plain_decoder import BIAS_RULES, PlainDecoderConfig, PlainDecoderModel
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import RMSNorm


@config_dataclass
class ArcticConfig(PlainDecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    Experts are of `intermediate_size`, the MLP of `hidden_size`.
    """

    model_type = "arctic"

    hidden_size: int = 7168
    intermediate_size: int = 4864
    num_hidden_layers: int = 35
    num_attention_heads: int = 56
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    num_experts: int = 128
    num_experts_per_tok: int = 2
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_experts)


ARCTIC = Architecture(
    gguf="arctic",
    config_class=ArcticConfig,
    rules=(*tables.DECODER_RULES, *BIAS_RULES, *tables.expert_rules(size=None), NO_WINDOW),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.INTERLEAVED_ATTENTION,
        *tables.GATED_MLP,
        Row("blk.{}.ffn_norm_exps", "layers.{}.experts_layernorm"),
        *tables.expert_rows("block_sparse_moe"),
    ),
)


class ArcticLayer(DecoderLayer):
    """A layer with experts beside attention and MLP."""

    def __init__(self, config: ArcticConfig, mixer: nn.Module, mlp: MLP) -> None:
        super().__init__(config, mixer, mlp)
        experts = moe.gated_experts(config, config.num_experts, config.intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=True)
        self.experts_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.block_sparse_moe = moe.SparseMoeBlock(experts, router)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        routed: Tensor = self.block_sparse_moe(self.experts_layernorm(x), step)
        return super().forward(x, step) + routed


class ArcticModel(PlainDecoderModel, architecture=ARCTIC):
    """Arctic without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: ArcticConfig, layer_idx: int) -> ArcticLayer:
        """Make a layer of attention, an MLP and experts."""
        mlp = MLP(config, intermediate_size=config.hidden_size)
        return ArcticLayer(config, self.make_attention(config, layer_idx), mlp)


class ArcticForCausalLM(moe.MoeForCausalLM, base=ArcticModel): ...
