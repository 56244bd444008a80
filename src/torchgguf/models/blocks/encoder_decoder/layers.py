"""Layers whose attention knows positions by biases on scores (Raffel et al. 2020, arXiv 1910.10683).

Module names are those of transformers' T5. Shape letters: B batch, T new positions, S positions seen, E
positions of the encoder, H heads, D head size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.step import Step
from torchgguf.nn import AttentionMask, EncodedKeyValues, Linear, RMSNorm, find_activation
from torchgguf.nn.relative_bias import RelativeBias


def biased(mask: AttentionMask, bias: Tensor) -> AttentionMask:
    """Return a mask with biases on scores `(1, H, T, S)`."""
    allowed = mask.allowed
    if mask.causal:
        allowed = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
    if allowed is not None:
        bias = bias.masked_fill(~allowed, -torch.inf)
    return AttentionMask(None, False, bias)


class RelativeAttention(SelfAttention):
    """Self-attention whose scores are not scaled, but biased by relative positions.

    Args:
        config: contains the sizes.
        layer_idx: number of the layer.
        has_biases: whether the layer contains biases.
        both_sides: whether a query sees the positions after it, too.
    """

    def __init__(self, config: Any, layer_idx: int, *, has_biases: bool, both_sides: bool = True) -> None:
        super().__init__(layer_idx, 1.0, config.dropout_rate)
        self.heads = config.num_heads
        self.q, self.k, self.v, self.o = projections(config)
        if has_biases:
            self.relative_attention_bias = RelativeBias(
                config.relative_attention_num_buckets,
                config.num_heads,
                config.relative_attention_max_distance,
                both_sides=both_sides,
            )

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, d_model)` to itself."""
        query, key, value = (layer(x).unflatten(2, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        output: Tensor = self.o(self.attend(query, key, value, step))
        return output

    def compare(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return weighted means of values `(B, H, T, D)`, and the probabilities or None.

        If the step has buckets, each layer adds biases of its own to the mask.
        """
        mask = step.masks[None]
        if step.buckets is not None:
            mask = biased(mask, self.relative_attention_bias(step.buckets).to(query))
        return step.attend(query, key, value, mask, self.scaling, self.dropout if self.training else 0.0)


class CrossAttention(nn.Module):
    """Attention to the states of an encoder, in `Step.encoded`; scores are neither scaled nor biased.

    Keys and values are computed once for a text, and kept in the cache.

    Args:
        config: contains the sizes.
        layer_idx: number of the layer.
    """

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.heads = config.num_heads
        self.dropout = config.dropout_rate
        self.q, self.k, self.v, self.o = projections(config)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, d_model)` to itself."""
        assert step.encoded is not None
        states = step.encoded.states

        def compute() -> tuple[Tensor, Tensor]:
            return self._in_heads(self.k(states)), self._in_heads(self.v(states))

        if step.cache is None:
            key, value = compute()
        else:
            key, value = step.cache.state(self.layer_idx, EncodedKeyValues).advance(x.shape[1], compute)
        query, dropout = self._in_heads(self.q(x)), self.dropout if self.training else 0.0
        mixed, probabilities = step.attend(query, key, value, step.encoded.mask, 1.0, dropout)
        step.record.add("cross_attentions", probabilities)
        output: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return output

    def _in_heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)


def projections(config: Any) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Create the layers of queries, keys, values and output of an attention."""
    width, size = config.d_model, config.num_heads * config.d_kv
    query, key, value = (Linear(width, size, bias=False) for _ in range(3))
    return query, key, value, Linear(size, width, bias=False)


class PlainOrGatedMLP(nn.Module):
    """`wo(act(wi(x)))`, or `wo(act(wi_0(x)) * wi_1(x))` with a gate."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.inputs = ("wi_0", "wi_1") if config.is_gated_act else ("wi",)
        for name in self.inputs:
            self.add_module(name, Linear(config.d_model, config.d_ff, bias=False))
        self.wo = Linear(config.d_ff, config.d_model, bias=False)
        self.act = find_activation("feed_forward_proj", config.dense_act_fn)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(..., d_model)` to itself."""
        first, *others = (getattr(self, name)(x) for name in self.inputs)
        inner: Tensor = self.act(first)
        for other in others:
            inner = inner * other
        output: Tensor = self.wo(self.dropout(inner))
        return output


class Residual(nn.Module):
    """A part of a layer, which reads the normalised stream and adds to it."""

    def __init__(self, config: Any, name: str, part: nn.Module) -> None:
        super().__init__()
        self.part_name = name
        self.add_module(name, part)
        self.layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, d_model)` to the next part's."""
        output: Tensor = self.dropout(getattr(self, self.part_name)(self.layer_norm(x), step))
        return x + output


class Block(nn.Module):
    """A layer: attention, in a decoder attention to the encoder's states, and an MLP."""

    def __init__(self, config: Any, attention: RelativeAttention, cross: CrossAttention | None) -> None:
        super().__init__()
        parts = {
            "SelfAttention": attention,
            "EncDecAttention": cross,
            "DenseReluDense": PlainOrGatedMLP(config),
        }
        self.layer = nn.ModuleList(
            Residual(config, name, part) for name, part in parts.items() if part is not None
        )

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, d_model)` to the next layer's."""
        for part in self.layer:
            if part.part_name != "EncDecAttention" or step.encoded is not None:
                x = part(x, step)
        return x
