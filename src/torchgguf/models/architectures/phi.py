"""Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023, arXiv 2306.11644): attention and MLP side by side."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderConfig, DecoderModel, ParallelLayer, layer_norm
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.nn import LayerNorm, Linear


@config_dataclass
class PhiConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    With `qk_layernorm`, queries and keys have norms.
    """

    model_type = "phi"
    left_out = ("rms_norm_eps",)
    rotates_parts = True
    default_part = 0.5

    vocab_size: int = 51200
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = 1e-5
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    qk_layernorm: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, *legacy: Any) -> None:
        """Check the head."""
        super().__post_init__(*legacy)
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True is unsupported for Phi, whose head has a bias")


PHI = Architecture(
    gguf="phi2",
    config_class=PhiConfig,
    rules=(
        *tables.SIZE_RULES,
        tables.layer_norm_epsilon("layer_norm_eps"),
        PartialRope(),
        NO_WINDOW,
        Unwritable("hidden_act", "gelu_new"),
        Unwritable("qk_layernorm", False),
    ),
    rows=(
        Row("token_embd", "embed_tokens"),
        Row("output_norm", "final_layernorm"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
        *tables.QKV,
        Row("blk.{}.attn_output", "layers.{}.self_attn.dense"),
        Row("blk.{}.ffn_up", "layers.{}.mlp.fc1"),
        Row("blk.{}.ffn_down", "layers.{}.mlp.fc2"),
    ),
    unread=tables.PLAIN_MLP_FACTORS,
)


class PhiAttention(Attention):
    """Attention with biases and, if the config asks for them, norms of queries and keys."""

    def __init__(self, config: PhiConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=True)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.qk_layernorm = config.qk_layernorm
        if self.qk_layernorm:
            self.q_layernorm = LayerNorm(self.head_dim, eps=config.layer_norm_eps)
            self.k_layernorm = LayerNorm(self.head_dim, eps=config.layer_norm_eps)

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the output projection."""
        self.dense = Linear(self.query_size, hidden_size, bias=bias)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means as `Attention` does, then apply dropout."""
        output: Tensor = self.resid_dropout(self.dense(mixed))
        return output

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Apply the norms, then rotate as `Attention` does."""
        if self.qk_layernorm:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
        return super().position(query, key, step)


class PhiMLP(PlainMLP):
    """MLP with biases and dropout."""

    projections = ("fc1", "fc2")

    def __init__(self, config: PhiConfig) -> None:
        super().__init__(config, bias=True)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map as `PlainMLP` does, then apply dropout."""
        dropped: Tensor = self.resid_dropout(super().forward(x))
        return dropped


class PhiModel(DecoderModel, architecture=PHI):
    """Phi without a head."""

    norm_name = "final_layernorm"

    def make_norm(self, config: PhiConfig) -> nn.Module:
        """Create the last norm."""
        return layer_norm(config)

    def make_layer(self, config: PhiConfig, layer_idx: int) -> ParallelLayer:
        """Make a layer whose attention and MLP have the same input."""
        return ParallelLayer(config, PhiAttention(config, layer_idx), PhiMLP(config), layer_norm)

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Apply dropout to embedded tokens."""
        return F.dropout(x, self.config.embd_pdrop, self.training)


class PhiForCausalLM(heads.ForCausalLM, base=PhiModel):
    """Predicts the next token, by a head with a bias."""

    head_bias = True


class PhiForSequenceClassification(heads.ForSequenceClassification, base=PhiModel): ...


class PhiForTokenClassification(heads.ForTokenClassification, base=PhiModel): ...
