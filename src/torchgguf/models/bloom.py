"""BLOOM (BigScience 2022, arXiv 2211.05100): no embedded positions, but attention with linear biases (ALiBi).

Shape letters: B batch, T new positions, S positions seen including the new ones, H heads, D head size.
"""

from collections.abc import Iterable, Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.architecture import Architecture
from torchgguf.models.base import PreTrainedModel
from torchgguf.models.config import PreTrainedConfig, config_dataclass
from torchgguf.models.config_map import (
    Field,
    Header,
    Implied,
    Only,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.decoder import DecoderForCausalLM
from torchgguf.models.heads import ForQuestionAnswering, ForSequenceClassification, ForTokenClassification
from torchgguf.models.outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from torchgguf.models.stack import LayerStack
from torchgguf.models.weight_map import Row, RowPermutation, WeightMap
from torchgguf.nn import (
    AttentionFunction,
    AttentionMask,
    Cache,
    Embedding,
    LayerNorm,
    Linear,
    alibi_mask,
    alibi_slopes,
)


@config_dataclass
class BloomConfig(PreTrainedConfig):
    """Sizes and choices.

    `apply_residual_connection_post_layernorm` adds what attention and MLP make to their normalised inputs,
    not to the stream. `seq_length` is the length of the texts trained on; there is no limit. `pretraining_tp`
    and `slow_but_exact` tell how sums were split in training, which changes nothing but their rounding.
    `n_embed`, as older configs have it, goes before `hidden_size`.
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
        """Take the older name, and refuse sizes that do not fit."""
        super().__post_init__(num_labels)
        if n_embed is not None:
            self.hidden_size = n_embed
        if self.n_head < 1 or self.hidden_size % self.n_head:
            raise ValueError(
                f"hidden_size={self.hidden_size} cannot be shared evenly by n_head={self.n_head}"
            )


# A dataclass leaves the default of the argument on the class, where None would pass for an answer.
BloomConfig.n_embed = property(lambda config: config.hidden_size)  # type: ignore[attr-defined]


class ContextLength(Rule):
    """The length of the texts trained on; where a config leaves it open, files have the width instead."""

    keys = ("context_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the length."""
        return {"seq_length": header.positive(self.keys[0], int)}

    def write(self, config: BloomConfig) -> dict[str, Any]:
        """Write the length, as llama.cpp's converter does (conversion/bloom.py)."""
        return {self.keys[0]: config.seq_length or config.hidden_size}


class InnerSize(Rule):
    """The width of the MLP, always four times that of the model."""

    keys = ("feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Refuse another width."""
        size, usual = header.positive(self.keys[0], int), 4 * header.positive("embedding_length", int)
        if size != usual:
            raise GGUFError(f"{self.keys[0]} = {size} cannot be: it is four times the width, {usual}")
        return {}

    def write(self, config: BloomConfig) -> dict[str, Any]:
        """Write the width."""
        return {self.keys[0]: 4 * config.hidden_size}


def _heads_together(config: BloomConfig) -> Tensor:
    """Say which row of `query_key_value` each one of a file is: there, all heads' queries come first."""
    return torch.arange(3 * config.hidden_size).view(config.n_head, 3, -1).transpose(0, 1).flatten()


BLOOM = Architecture(
    gguf="bloom",
    config_class=BloomConfig,
    hf_prefix="transformer.",
    rules=(
        Field("block_count", "n_layer", limit=tensor_count),
        ContextLength(),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        InnerSize(),
        Field("attention.head_count", "n_head", limit=largest_dimension),
        Field("attention.head_count_kv", "n_head", required=False, limit=largest_dimension),
        Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        Only("attention.max_alibi_bias", 8.0, "the steepest slopes of Bloom are those of 8"),
        Only("attention.causal", True, "attention in both directions is not supported"),
        Implied("vocab_size", lambda tensors: tensors["token_embd.weight"].shape[0]),
        Implied("tie_word_embeddings", lambda tensors: "output.weight" not in tensors),
        Unwritable("apply_residual_connection_post_layernorm", False),
    ),
    weights=WeightMap(
        (
            Row("token_embd", "transformer.word_embeddings"),
            Row("token_embd_norm", "transformer.word_embeddings_layernorm"),
            Row("output_norm", "transformer.ln_f"),
            Row("output", "lm_head"),
            Row("blk.{}.attn_norm", "transformer.h.{}.input_layernorm"),
            Row(
                "blk.{}.attn_qkv",
                "transformer.h.{}.self_attention.query_key_value",
                RowPermutation(_heads_together),
            ),
            Row("blk.{}.attn_output", "transformer.h.{}.self_attention.dense"),
            Row("blk.{}.ffn_norm", "transformer.h.{}.post_attention_layernorm"),
            Row("blk.{}.ffn_up", "transformer.h.{}.mlp.dense_h_to_4h"),
            Row("blk.{}.ffn_down", "transformer.h.{}.mlp.dense_4h_to_h"),
        )
    ),
)


class BloomAttention(nn.Module):
    """Self-attention; one projection gives, head by head, its query, its key and its value."""

    def __init__(self, config: BloomConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.heads = config.n_head
        self.scaling = (config.hidden_size // config.n_head) ** -0.5
        self.query_key_value = Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.attention_dropout = config.attention_dropout
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: Cache | None, attend: AttentionFunction
    ) -> tuple[Tensor, Tensor | None]:
        """Map `(B, T, hidden_size)` to itself; also the probabilities, if `attend` makes them."""
        batch, new, _ = x.shape
        heads = self.query_key_value(x).view(batch, new, self.heads, 3, -1)
        query, key, value = (part.transpose(1, 2) for part in heads.unbind(3))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        dropout = self.attention_dropout if self.training else 0.0
        output, probabilities = attend(query, key, value, mask, self.scaling, dropout)
        output = self.dense(output.transpose(1, 2).reshape(batch, new, -1))
        return self.hidden_dropout(output), probabilities


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
    """Attention and MLP, each on the normalised stream and added back to it, or to what it was given."""

    def __init__(self, config: BloomConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.self_attention = BloomAttention(config, layer_idx)
        self.post_attention_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mlp = BloomMLP(config)
        self.adds_to_normalised = config.apply_residual_connection_post_layernorm

    def forward(
        self, x: Tensor, mask: AttentionMask, cache: Cache | None, attend: AttentionFunction
    ) -> tuple[Tensor, Tensor | None]:
        """Map the stream `(B, T, hidden_size)` to the next layer's; also the attention probabilities."""
        normalised = self.input_layernorm(x)
        attended, probabilities = self.self_attention(normalised, mask, cache, attend)
        x = attended + (normalised if self.adds_to_normalised else x)
        normalised = self.post_attention_layernorm(x)
        return self.mlp(normalised) + (normalised if self.adds_to_normalised else x), probabilities


class BloomPreTrainedModel(PreTrainedModel):
    """Base of the Bloom models."""

    architecture = BLOOM
    base_model_prefix = "transformer"


class BloomModel(BloomPreTrainedModel, LayerStack):
    """Bloom without a head. Only `attention_mask` tells how far apart tokens are, `position_ids` do not."""

    layers_name = "h"
    norm_name = "ln_f"
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

    def prepare(
        self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Iterable[tuple[Any, ...]]]:
        """Normalise what was embedded, and give every layer the one mask with its biases."""
        self.slopes = self.slopes.to(x.device)
        mask = alibi_mask(self.slopes, attention_mask, x, cache)
        return self.word_embeddings_layernorm(x), [(mask,)] * len(self.h)

    def forward(  # type: ignore[override]  # the order is that of transformers
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the model; arguments and errors are those of `LayerStack.forward`."""
        return super().forward(
            input_ids,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **options,
        )


class BloomWithHead(BloomPreTrainedModel):
    """Bloom with a head that scores tokens or texts: it takes its inputs in the order of transformers."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the model and its head, and return what the head's class says.

        Arguments and errors are those of `LayerStack.forward` and of `DecoderForCausalLM`,
        `ForSequenceClassification` or `ForTokenClassification`; `labels` ask for the loss.
        """
        return super().forward(
            input_ids,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            **options,
        )


class BloomForCausalLM(BloomWithHead, DecoderForCausalLM):  # type: ignore[misc]  # by the order of inputs
    """Bloom that predicts the next token."""

    base_class = BloomModel
    output_class = CausalLMOutputWithCrossAttentions


class BloomForSequenceClassification(BloomWithHead, ForSequenceClassification):  # type: ignore[misc]
    """Bloom that judges texts."""

    base_class = BloomModel


class BloomForTokenClassification(BloomWithHead, ForTokenClassification):  # type: ignore[misc]
    """Bloom that judges tokens."""

    base_class = BloomModel
    head_name = "classifier"


class BloomForQuestionAnswering(BloomPreTrainedModel, ForQuestionAnswering):
    """Bloom that finds answers in a text."""

    base_class = BloomModel
