"""StableLM (Bellagente et al. 2024, arXiv 2402.17834): norms with a mean, partial rotation."""

from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import (
    DecoderConfig,
    DecoderLayer,
    DecoderModel,
    ParallelLayer,
    layer_norm,
)
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Implied, Rule, Unwritable
from torchgguf.models.core.weight_map import Row, Stack
from torchgguf.nn import HeadwiseLayerNorm


@config_dataclass
class StableLmConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    With `use_parallel_residual`, attention and MLP read the same norm; with `qk_layernorm`, each head of
    queries and keys has a norm of its own.
    """

    model_type = "stablelm"
    left_out = ("rms_norm_eps",)
    rotates_parts = True
    default_part = 0.25

    vocab_size: int = 50304
    hidden_size: int = 2560
    intermediate_size: int = 6912
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 4096
    layer_norm_eps: float = 1e-5
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    use_qkv_bias: bool = False
    qk_layernorm: bool = False
    use_parallel_residual: bool = False
    hidden_dropout: float = 0.0


class ParallelResidual(Rule):
    """Whether attention and MLP are side by side: files state it, and contain a second norm or not."""

    keys = ("use_parallel_residual",)

    def read(self, header: Header) -> dict[str, Any]:
        """Return what the tensors imply, as llama.cpp does."""
        return {"use_parallel_residual": "blk.0.ffn_norm.weight" not in header.tensors}

    def write(self, config: Any) -> dict[str, Any]:
        """State it."""
        return {self.keys[0]: config.use_parallel_residual}


_NORM = "layers.{}.self_attn.%s_layernorm"

STABLELM = Architecture(
    gguf="stablelm",
    config_class=StableLmConfig,
    rules=(
        *tables.SIZE_RULES,
        PartialRope(),
        tables.layer_norm_epsilon("layer_norm_eps"),
        ParallelResidual(),
        Unwritable("hidden_act", "silu"),
        Implied("use_qkv_bias", tables.in_first_layer("attn_q.bias")),
        Implied("qk_layernorm", tables.in_first_layer("attn_q_norm.weight")),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        Row("blk.{}.attn_q_norm", _NORM % "q"),
        Row("blk.{}.attn_k_norm", _NORM % "k"),
        *tables.GATED_MLP,
    ),
    stacks=tuple(Stack(f"{_NORM % x}.weight", (f"{_NORM % x}.norms.{{}}.weight",)) for x in "qk"),
    states_head=True,
)


class StableLmHeadNorms(HeadwiseLayerNorm):
    """Norms of all heads, which state dicts contain apart: `norms.0.weight`, `norms.1.weight`, …"""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for i, weight in enumerate(self.weight):
            destination[f"{prefix}norms.{i}.weight"] = weight if keep_vars else weight.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names = [f"{prefix}norms.{i}.weight" for i in range(len(self.weight))]
        if all(name in state_dict for name in names):
            state_dict[f"{prefix}weight"] = torch.stack([state_dict.pop(name) for name in names])
        super()._load_from_state_dict(state_dict, prefix, *args)


class StableLmAttention(Attention):
    """Attention with norms of queries and keys, each head with weights of its own."""

    def __init__(self, config: StableLmConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.use_qkv_bias, output_bias=False)
        self.has_head_norms = config.qk_layernorm
        if self.has_head_norms:
            assert config.num_key_value_heads
            eps = config.layer_norm_eps
            self.q_layernorm = StableLmHeadNorms(config.num_attention_heads, self.head_dim, eps)
            self.k_layernorm = StableLmHeadNorms(config.num_key_value_heads, self.head_dim, eps)

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Normalise queries and keys, then rotate them."""
        if self.has_head_norms:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
        return super().position(query, key, step)


class StableLmMLP(MLP):
    """A gated MLP with dropout."""

    def __init__(self, config: StableLmConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map as `MLP` does, then apply dropout."""
        dropped: Tensor = self.dropout(super().forward(x))
        return dropped


class StableLmModel(DecoderModel, architecture=STABLELM):
    """StableLM without a head."""

    def make_layer(self, config: StableLmConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; attention and MLP follow each other or are side by side."""
        kind = ParallelLayer if config.use_parallel_residual else DecoderLayer
        return kind(config, StableLmAttention(config, layer_idx), StableLmMLP(config), layer_norm)

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return layer_norm(config)


class StableLmForCausalLM(heads.ForCausalLM, base=StableLmModel): ...


class StableLmForSequenceClassification(heads.ForSequenceClassification, base=StableLmModel): ...


class StableLmForTokenClassification(heads.ForTokenClassification, base=StableLmModel): ...
