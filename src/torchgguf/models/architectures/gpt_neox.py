"""GPT-NeoX (Black et al. 2022, arXiv 2204.06745) and Pythia: attention and MLP side by side."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import (
    DecoderConfig,
    DecoderLayer,
    DecoderModel,
    NormNames,
    ParallelLayer,
    layer_norm,
)
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.rope_rule import PartialRope
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Flag, Unwritable
from torchgguf.models.core.weight_map import HEAD, OtherNames, Row, RowPermutation
from torchgguf.nn import Linear


@config_dataclass
class GPTNeoXConfig(DecoderConfig):
    """Fields beyond those of all decoders, and other defaults.

    With `use_parallel_residual`, attention and MLP both read the stream as it enters a layer.
    """

    model_type = "gpt_neox"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "rotary_pct": "partial_rotary_factor",
        "rotary_emb_base": "rope_theta",
    }
    left_out = ("rms_norm_eps", "num_key_value_heads", "head_dim")
    rotates_parts = True
    default_part = 0.25

    vocab_size: int = 50432
    hidden_size: int = 6144
    intermediate_size: int = 24576
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout: float = 0.0
    classifier_dropout: float = 0.1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    use_parallel_residual: bool = True
    attention_bias: bool = True
    is_decoder: bool = False


def _heads_together(config: GPTNeoXConfig, rows: int) -> Tensor:
    """Return the row of `query_key_value` for each row of a file, which stores queries of all heads first."""
    return torch.arange(rows).view(config.num_attention_heads, 3, -1).transpose(0, 1).flatten()


GPT_NEOX = Architecture(
    gguf="gptneox",
    config_class=GPTNeoXConfig,
    rules=(
        *tables.SIZE_RULES,
        PartialRope(),
        tables.layer_norm_epsilon("layer_norm_eps"),
        Flag("use_parallel_residual", "use_parallel_residual", default=True),
        Unwritable("hidden_act", "gelu"),
        Unwritable("attention_bias", True),
    ),
    rows=(
        Row("token_embd", "embed_in"),
        Row("output_norm", "final_layer_norm"),
        Row("output", HEAD),
        *tables.PRE_NORMS,
        Row("blk.{}.attn_qkv", "layers.{}.attention.query_key_value", RowPermutation(_heads_together)),
        Row("blk.{}.attn_output", "layers.{}.attention.dense"),
        Row("blk.{}.ffn_up", "layers.{}.mlp.dense_h_to_4h"),
        Row("blk.{}.ffn_down", "layers.{}.mlp.dense_4h_to_h"),
    ),
    other_names=OtherNames({HEAD: "embed_out"}),
    states_head=True,
    unread=tables.PLAIN_MLP_FACTORS,
)


class GPTNeoXAttention(Attention):
    """Attention whose one projection computes, head by head, query, key and value."""

    layer_name = "attention"

    def __init__(self, config: GPTNeoXConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx, bias=config.attention_bias)
        self.post_dropout = nn.Dropout(config.hidden_dropout)

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the one projection."""
        self.query_key_value = Linear(hidden_size, 3 * hidden_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        parts = self.query_key_value(x).unflatten(2, (-1, 3, self.head_dim))
        query, key, value = (part.flatten(2) for part in parts.unbind(3))
        return query, key, value

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the output projection."""
        self.dense = Linear(self.query_size, hidden_size, bias=bias)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means as `Attention` does, then apply dropout."""
        output: Tensor = self.post_dropout(self.dense(mixed))
        return output


class GPTNeoXMLP(PlainMLP):
    """MLP with biases and dropout."""

    projections = ("dense_h_to_4h", "dense_4h_to_h")

    def __init__(self, config: GPTNeoXConfig) -> None:
        super().__init__(config, bias=True)
        self.post_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map as `PlainMLP` does, then apply dropout."""
        dropped: Tensor = self.post_dropout(super().forward(x))
        return dropped


class GPTNeoXParallelLayer(ParallelLayer):
    """A layer whose attention and MLP read the stream by norms of their own."""

    norm_names = NormNames()


class GPTNeoXModel(DecoderModel, architecture=GPT_NEOX):
    """GPT-NeoX without a head."""

    base_model_prefix = "gpt_neox"
    argument_order = ("input_ids", "attention_mask", "position_ids", "inputs_embeds", "cache", "use_cache")
    embedding_name = "embed_in"
    norm_name = "final_layer_norm"

    def __init__(self, config: GPTNeoXConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        embedding = self.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        embedding.padding_idx = None  # the row of padding is trained, as in transformers

    def make_norm(self, config: GPTNeoXConfig) -> nn.Module:
        """Create the last norm."""
        return layer_norm(config)

    def make_layer(self, config: GPTNeoXConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer; attention and MLP are side by side or follow each other."""
        kind = GPTNeoXParallelLayer if config.use_parallel_residual else DecoderLayer
        return kind(config, GPTNeoXAttention(config, layer_idx), GPTNeoXMLP(config), layer_norm)

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Apply dropout to embedded tokens."""
        return nn.functional.dropout(x, self.config.hidden_dropout, self.training)


class GPTNeoXForCausalLM(heads.ForCausalLM, base=GPTNeoXModel):
    argument_order = (*GPTNeoXModel.argument_order[:-1], "labels", "use_cache")


class GPTNeoXForSequenceClassification(heads.ForSequenceClassification, base=GPTNeoXModel):
    argument_order = GPTNeoXForCausalLM.argument_order


class GPTNeoXForTokenClassification(heads.ForTokenClassification, base=GPTNeoXModel):
    head_name = "classifier"
    argument_order = (
        *("input_ids", "cache", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"),
        *("labels", "use_cache"),
    )


class GPTNeoXForQuestionAnswering(heads.ForQuestionAnswering, base=GPTNeoXModel):
    argument_order = (
        *("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"),
        *("start_positions", "end_positions"),
    )
