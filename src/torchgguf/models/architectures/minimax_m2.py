"""MiniMax-M2 (MiniMax 2025): experts that are chosen by sigmoids with a bias, in every layer.

Norms of queries and keys apply to all heads together; a part of each head is rotated.
"""

from collections.abc import Mapping
from dataclasses import InitVar
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.models.architectures.mixtral import MIXTRAL_STACKS
from torchgguf.models.blocks import moe, routing_rules, tables
from torchgguf.models.blocks.attention import AttentionNormingAllHeads
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderLayer, DecoderModel
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.models.core.weight_map import OtherNames, Row
from torchgguf.nn import CorrectionBias, Experts, RMSNorm
from torchgguf.nn.rotary import rotated_size


@config_dataclass
class MiniMaxM2Config(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    `rotary_dim` is the rotated size of a head in released checkpoints, instead of a `partial_rotary_factor`.
    """

    model_type = "minimax_m2"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}
    rotates_parts = True
    default_theta = 5000000.0

    vocab_size: int = 200064
    hidden_size: int = 3072
    intermediate_size: int = 1536
    num_hidden_layers: int = 62
    num_attention_heads: int = 48
    num_key_value_heads: int | None = 8
    head_dim: int | None = 128
    max_position_embeddings: int = 196608
    bos_token_id: int | None = 200034
    eos_token_id: int | list[int] | None = 200020
    num_experts_per_tok: int = 8
    num_local_experts: int = 256
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    router_jitter_noise: float = 0.0
    rotary_dim: InitVar[int | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Derive the rotated part from the rotated size, and check the number of experts."""
        *others, size = legacy
        if size is not None and "partial_rotary_factor" not in (self.rope_parameters or {}):
            assert self.head_dim
            others[-1] = size / self.head_dim if others[-1] is None else others[-1]
        super().__post_init__(*others)
        assert self.rope_parameters and self.head_dim
        # The one that llama.cpp's converter reads.
        vars(self)["rotary_dim"] = rotated_size(self.rope_parameters, self.head_dim)
        moe.check_choices(self.num_experts_per_tok, self.num_local_experts)


_BIAS = "e_score_correction_bias"

MINIMAX_M2 = Architecture(
    gguf="minimax-m2",
    config_class=MiniMaxM2Config,
    rules=(
        *tables.COMMON_RULES,
        PartialRope(),
        Unwritable("hidden_act", "silu"),
        *tables.expert_rules("num_local_experts", size="intermediate_size"),
        routing_rules.Gating(routing_rules.SIGMOID),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.EXPERTS,
        Row("blk.{}.exp_probs_b", f"layers.{{}}.mlp.{_BIAS}"),
    ),
    stacks=MIXTRAL_STACKS,
    other_names=OtherNames(
        {
            "layers.{}.mlp.gate": "layers.{}.block_sparse_moe.gate",
            f"layers.{{}}.mlp.{_BIAS}": f"layers.{{}}.block_sparse_moe.{_BIAS}",
        }
    ),
    states_head=True,
)


class MiniMaxM2MoeBlock(CorrectionBias, moe.SparseMoeBlock):
    """Experts that are chosen by scores with a bias, which belongs to the block."""

    def __init__(self, experts: Experts, router: moe.Router, jitter: float) -> None:
        super().__init__(experts, router, jitter=jitter)
        self.add_bias(experts.sizes[0])

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the indices of the experts of each token, `(N, K)` each."""
        return self.route(logits, self.e_score_correction_bias)


class MiniMaxM2Model(DecoderModel, architecture=MINIMAX_M2):
    """MiniMax-M2 without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: MiniMaxM2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with experts."""
        attention = AttentionNormingAllHeads(config, layer_idx, qk_norm=RMSNorm)
        experts = moe.gated_experts(config, config.num_local_experts, config.intermediate_size)
        router = partial(moe.sigmoid_then_choose, choices=config.num_experts_per_tok)
        mlp = MiniMaxM2MoeBlock(experts, router, config.router_jitter_noise)
        return DecoderLayer(config, attention, mlp)


class MiniMaxM2ForCausalLM(moe.MoeForCausalLM, base=MiniMaxM2Model): ...
