"""Nomic Embed (Nussbaum et al. 2024, arXiv 2402.01613): a BERT with rotary embedding and gated MLPs.

As files state them, queries, keys and values are one tensor.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.encoder import EncoderEmbeddings, EncoderStack, WithPooler
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import BaseModelOutputWithPooling
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Unwritable
from torchgguf.models.core.weight_map import Joined, OtherNames, Row
from torchgguf.nn import LayerNorm, RotaryEmbedding, Rotation

_LAYER = "layers.{}"


@config_dataclass
class NomicBertConfig(RotaryConfig):
    """Sizes and choices, as transformers names them; `type_vocab_size` is the number of kinds of tokens."""

    model_type = "nomic_bert"
    default_theta = 1000.0

    vocab_size: int = 30528
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    head_dim: int | None = None
    hidden_act: str = "silu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Derive the size of a head, and check it."""
        super().__post_init__(*legacy)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must be a positive divisor of hidden_size={self.hidden_size}, "
                f"got {self.num_attention_heads}"
            )
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"head_dim must be even and at least 2, got {self.head_dim}")

    @property
    def num_key_value_heads(self) -> int:
        """The number of heads of keys and values."""
        return self.num_attention_heads

    @property
    def attention_dropout(self) -> float:
        """The probability of dropping a weight of attention in training."""
        return self.attention_probs_dropout_prob


NOMIC_BERT = Architecture(
    gguf="nomic-bert",
    config_class=NomicBertConfig,
    rules=(
        *tables.ENCODER_RULES,
        *tables.KINDS_RULES,
        Field("context_length", "max_position_embeddings"),
        Unwritable("hidden_act", "silu"),
        *tables.HEAD_SIZES,
        Rope(),
    ),
    rows=(
        *tables.EMBEDDED_KINDS,
        *tables.ATTENTION,
        Row("blk.{}.attn_output_norm", f"{_LAYER}.post_attention_layernorm"),
        *tables.GATED_MLP,
        Row("blk.{}.layer_output_norm", f"{_LAYER}.post_mlp_layernorm"),
    ),
    joined=(tables.FUSED_QKV,),
    # Names in released checkpoints.
    joined_in_checkpoints=(
        Joined(
            "encoder.layers.{}.attn.Wqkv",
            tuple(f"{_LAYER}.self_attn.{part}_proj" for part in ("q", "k", "v")),
        ),
    ),
    other_names=OtherNames(
        {
            "embeddings.LayerNorm": "emb_ln",
            f"{_LAYER}.self_attn.o_proj": "encoder.layers.{}.attn.out_proj",
            f"{_LAYER}.post_attention_layernorm": "encoder.layers.{}.norm1",
            f"{_LAYER}.mlp.up_proj": "encoder.layers.{}.mlp.fc11",
            f"{_LAYER}.mlp.gate_proj": "encoder.layers.{}.mlp.fc12",
            f"{_LAYER}.mlp.down_proj": "encoder.layers.{}.mlp.fc2",
            f"{_LAYER}.post_mlp_layernorm": "encoder.layers.{}.norm2",
        },
        are_written=False,
    ),
    unused=("pooler.", "cls."),
)


class NomicBertLayer(nn.Module):
    """Attention and MLP, each behind the other, each with a norm after its sum with the stream."""

    def __init__(self, config: NomicBertConfig, layer_idx: int) -> None:
        super().__init__()
        self.post_attention_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.mlp = MLP(config)
        self.self_attn = Attention(config, layer_idx)
        self.post_mlp_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        x = self.post_attention_layernorm(x + self.dropout(self.self_attn(x, step)))
        output: Tensor = self.post_mlp_layernorm(x + self.dropout(self.mlp(x, step)))
        return output


class NomicBertModel(EncoderStack, architecture=NOMIC_BERT):
    """Nomic Embed without a head and without a pooler."""

    base_model_prefix = "nomic_bert"
    ends_with_context = False
    output_class = BaseModelOutputWithPooling

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.embeddings = EncoderEmbeddings(config)
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim)
        self.layers = nn.ModuleList(NomicBertLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the positions, once for all layers."""
        return {"default": self.rotary_emb(position_ids, dtype)}


class NomicBertWithPooler(WithPooler, NomicBertModel):
    """Nomic Embed without a head, but with a pooler."""

    argument_order = NomicBertModel.argument_order


class NomicBertForSequenceClassification(heads.ForPooledClassification, base=NomicBertWithPooler):
    head_name = "classifier"


class NomicBertForTokenClassification(heads.ForTokenClassification, base=NomicBertModel):
    head_name = "classifier"
