"""BLOOM (BigScience 2022, arXiv 2211.05100): attention with linear biases (ALiBi), no embedded positions.

Shape letters: B batch, T new positions, S positions seen including the new ones, H heads, D head size.
"""

from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Field,
    Header,
    Only,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, Row, RowPermutation
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.nn import AttentionMask, Cache, Embedding, LayerNorm, Linear, alibi_mask, alibi_slopes


@config_dataclass
class BloomConfig(PreTrainedConfig):
    """Sizes and choices.

    `apply_residual_connection_post_layernorm` adds the outputs of attention and MLP to their normalised
    inputs, not to the stream. `seq_length` is the length of texts in training, not a limit. `pretraining_tp`
    and `slow_but_exact` describe how training split sums, which affects only their rounding. `n_embed`, a
    field of older configs, overrides `hidden_size`.
    """

    model_type = "bloom"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 250880
    hidden_size: int = 64
    n_layer: int = 2
    n_head: int = 8
    layer_norm_epsilon: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    apply_residual_connection_post_layernorm: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    pretraining_tp: int = 1
    slow_but_exact: bool = False
    seq_length: int | None = None
    tie_word_embeddings: bool = True
    n_embed: InitVar[int | None] = None

    def __post_init__(self, num_labels: int | None, n_embed: int | None) -> None:
        """Apply the older name, and check the sizes."""
        super().__post_init__(num_labels)
        if n_embed is not None:
            self.hidden_size = n_embed
        if self.n_head < 1 or self.hidden_size % self.n_head:
            raise ValueError(
                f"n_head must be a positive divisor of hidden_size={self.hidden_size}, "
                f"got n_head={self.n_head}"
            )


# A dataclass keeps the default of the argument as an attribute of the class: None would hide the value.
BloomConfig.n_embed = property(lambda config: config.hidden_size)  # type: ignore[attr-defined]


class ContextLength(Rule):
    """The length of texts in training; if a config has None, files store the width instead."""

    keys = ("context_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the length."""
        return {"seq_length": header.positive(self.keys[0], int)}

    def write(self, config: BloomConfig) -> dict[str, Any]:
        """Write the length, as llama.cpp's converter does (conversion/bloom.py)."""
        return {self.keys[0]: config.seq_length or config.hidden_size}


class FixedInnerSize(Rule):
    """The width of the MLP, always four times the model's."""

    keys = ("feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Check the width."""
        size, usual = header.positive(self.keys[0], int), 4 * header.positive("embedding_length", int)
        if size != usual:
            raise GGUFError(f"{self.keys[0]} = {size} is invalid: it must be four times the width, {usual}")
        return {}

    def write(self, config: BloomConfig) -> dict[str, Any]:
        """Write the width."""
        return {self.keys[0]: 4 * config.hidden_size}


def _heads_together(config: BloomConfig, rows: int) -> Tensor:
    """Return the row of `query_key_value` for each row of a file, which stores queries of all heads first."""
    return torch.arange(rows).view(config.n_head, 3, -1).transpose(0, 1).flatten()


BLOOM = Architecture(
    gguf="bloom",
    config_class=BloomConfig,
    rules=(
        Field("block_count", "n_layer", limit=tensor_count),
        ContextLength(),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        FixedInnerSize(),
        Field("attention.head_count", "n_head", limit=largest_dimension),
        Field("attention.head_count_kv", "n_head", required=False, limit=largest_dimension),
        Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        Only("attention.max_alibi_bias", 8.0, "the slopes of Bloom require 8.0"),
        *tables.IMPLIED_RULES,
        Unwritable("apply_residual_connection_post_layernorm", False),
    ),
    rows=(
        Row("token_embd", "word_embeddings"),
        Row("token_embd_norm", "word_embeddings_layernorm"),
        Row("output_norm", "ln_f"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "h.{}.input_layernorm"),
        Row(
            "blk.{}.attn_qkv",
            "h.{}.self_attention.query_key_value",
            RowPermutation(_heads_together),
        ),
        Row("blk.{}.attn_output", "h.{}.self_attention.dense"),
        Row("blk.{}.ffn_norm", "h.{}.post_attention_layernorm"),
        Row("blk.{}.ffn_up", "h.{}.mlp.dense_h_to_4h"),
        Row("blk.{}.ffn_down", "h.{}.mlp.dense_4h_to_h"),
    ),
)


class BloomAttention(SelfAttention):
    """Self-attention; one projection computes, head by head, query, key and value."""

    def __init__(self, config: BloomConfig, layer_idx: int) -> None:
        scaling = (config.hidden_size // config.n_head) ** -0.5
        super().__init__(layer_idx, scaling, config.attention_dropout)
        self.heads = config.n_head
        self.query_key_value = Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        query, key, value = self.query_key_value(x).unflatten(2, (self.heads, 3, -1)).unbind(3)
        output: Tensor = self.hidden_dropout(self.dense(self.attend(query, key, value, step)))
        return output


class BloomMLP(nn.Module):
    """`dense_4h_to_h(gelu(dense_h_to_4h(x)))`, the gelu by its tanh approximation."""

    def __init__(self, config: BloomConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = Linear(config.hidden_size, 4 * config.hidden_size)
        self.dense_4h_to_h = Linear(4 * config.hidden_size, config.hidden_size)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        inner = F.gelu(self.dense_h_to_4h(x), approximate="tanh")
        outer: Tensor = self.hidden_dropout(self.dense_4h_to_h(inner))
        return outer


class BloomBlock(nn.Module):
    """Attention and MLP: each adds its output to the stream, or to the normalised stream that it reads."""

    def __init__(self, config: BloomConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.self_attention = BloomAttention(config, layer_idx)
        self.post_attention_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = BloomMLP(config)
        self.adds_to_normalised = config.apply_residual_connection_post_layernorm

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        normalised = self.input_layernorm(x)
        x = self.self_attention(normalised, step) + (normalised if self.adds_to_normalised else x)
        normalised = self.post_attention_layernorm(x)
        output: Tensor = self.mlp(normalised) + (normalised if self.adds_to_normalised else x)
        return output


class BloomModel(LayerStack, architecture=BLOOM):
    """Bloom without a head. Distances of tokens depend on `attention_mask`, not on `position_ids`."""

    base_model_prefix = "transformer"
    layers_name = "h"
    norm_name = "ln_f"
    argument_order = ("input_ids", "cache", "attention_mask", "inputs_embeds", "use_cache")
    output_class = BaseModelOutputWithPastAndCrossAttentions

    def __init__(self, config: BloomConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.word_embeddings: nn.Module = Embedding(config.vocab_size, config.hidden_size)
        self.word_embeddings_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.h = nn.ModuleList(BloomBlock(config, i) for i in range(config.n_layer))
        self.ln_f = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.slopes = alibi_slopes(config.n_head)  # no buffer: `model.to(bfloat16)` must not round them
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.word_embeddings

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Normalise the embeddings."""
        embedded: Tensor = self.word_embeddings_layernorm(x)
        return embedded

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create one mask, with the biases of all heads."""
        self.slopes = self.slopes.to(x.device)
        return {None: alibi_mask(self.slopes, attention_mask, x, cache)}


class BloomForCausalLM(heads.ForCausalLM, base=BloomModel):
    output_class = CausalLMOutputWithCrossAttentions
    argument_order = ("input_ids", "cache", "attention_mask", "inputs_embeds", "labels", "use_cache")


class BloomForSequenceClassification(heads.ForSequenceClassification, base=BloomModel):
    argument_order = BloomForCausalLM.argument_order


class BloomForTokenClassification(heads.ForTokenClassification, base=BloomModel):
    head_name = "classifier"
    argument_order = BloomForCausalLM.argument_order


class BloomForQuestionAnswering(heads.ForQuestionAnswering, base=BloomModel):
    argument_order = ()
