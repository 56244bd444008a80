"""Self-attention: the base of all kinds, and the kind of llama-like models.

Shape letters: B batch, T new positions, S positions seen including the new ones, H query heads, K key/value
heads, D head size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.step import Step
from torchgguf.nn import Linear, RMSNorm, rotate
from torchgguf.nn.attention import score_and_mix, score_in_parts
from torchgguf.nn.cache import KeyValues, Lengths


class SelfAttention(nn.Module):
    """Base of all self-attention: what follows the projection to queries, keys and values.

    Args:
        layer_idx: number of the layer, which selects its state in the cache.
        scaling: factor on the scores.
        dropout: probability of dropping a weight in training.
        window: number of positions that a query sees, its own included; None: all.
        softcap: bound of the scores, as in `score_and_mix`; None: no bound.
        sinks: one more score for each head, `(H,)`, of a position without a value; None: no such scores.

    Attributes:
        lends: whether later layers read the keys and values, from `Step.shared`.
    """

    layer_name: ClassVar[str] = "self_attn"
    lends: bool = False
    sinks: nn.Parameter | None

    def __init__(
        self,
        layer_idx: int,
        scaling: float,
        dropout: float = 0.0,
        window: int | None = None,
        softcap: float | None = None,
        sinks: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.scaling = scaling
        self.dropout = dropout
        self.window = window
        self.softcap = softcap
        self.sinks = sinks
        self.is_plain = softcap is None and sinks is None

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        step: Step,
        lengths: Lengths | None = None,
    ) -> Tensor:
        """Compare queries `(B, T, H, D)` with all keys; return weighted means of values `(B, T, H * D)`.

        Args:
            query: of the new positions.
            key: `(B, T, K, D)`, appended to the cache of `step` unless that is None.
            value: as `key`.
            step: contains the mask, the cache and the record.
            lengths: text lengths for which the keys are valid, as in `Rotation`.
        """
        # Every layer of every token passes here: plain statements take less time than a loop.
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if step.cache is not None:
            key, value = step.cache.state(self.layer_idx, KeyValues).append(key, value, lengths)
        return self.mix(query, key, value, step)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> Tensor:
        """Compare queries `(B, H, T, D)` with keys `(B, K, S, D)`; return means of values `(B, T, H * D)`."""
        output, probabilities = self.compare(query, key, value, step)
        if probabilities is not None:
            step.record.add("attentions", probabilities)
        return output.transpose(1, 2).flatten(2)

    def compare(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return weighted means of values `(B, H, T, D)`, and the probabilities or None."""
        dropout = self.dropout if self.training else 0.0
        mask = step.masks[self.window]
        if self.is_plain:
            return step.attend(query, key, value, mask, self.scaling, dropout)
        extras: dict[str, Any] = {"softcap": self.softcap, "sinks": self.sinks}
        if step.record.attentions is not None:
            return score_and_mix(query, key, value, mask, self.scaling, dropout, **extras)
        return score_in_parts(query, key, value, mask, self.scaling, dropout, **extras), None


class Attention(SelfAttention):
    """Grouped-query attention with rotary embedding.

    Args:
        config: contains numbers of heads, `head_dim`, `hidden_size`, `attention_dropout`, `rms_norm_eps`.
        layer_idx: number of the layer.
        window: number of positions that a query sees, its own included; None: all.
        bias: whether the projections of queries, keys and values have biases.
        output_bias: whether the output projection has a bias; by default as `bias`.
        qk_norm: class of the norms of queries and keys, applied head by head; None: no norms.
        rotation: kind of the angles in `Step.rotations`; None: no rotation.
        query_rotation: kind of the angles of queries, if they have others than keys.
        rotate: rotates heads by angles: pairs of halves of a head, or of neighbours.
        scaling: factor on the scores; by default `head_dim ** -0.5`.
        softcap: bound of the scores; None: no bound.

    Attributes:
        norms_all_heads: whether the norms of queries and keys apply to all heads together.
    """

    norms_all_heads: ClassVar[bool] = False

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        window: int | None = None,
        *,
        bias: bool = False,
        output_bias: bool | None = None,
        qk_norm: type[nn.Module] | None = None,
        rotation: str | None = "default",
        query_rotation: str | None = None,
        rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate,
        scaling: float | None = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(
            layer_idx,
            config.head_dim**-0.5 if scaling is None else scaling,
            config.attention_dropout,
            window,
            softcap,
        )
        self.head_dim = config.head_dim
        self.rotation = rotation
        self.query_rotation = query_rotation
        self.rotate = rotate
        # Sizes of all heads together.
        self.query_size = config.num_attention_heads * self.head_dim
        self.key_size = config.num_key_value_heads * self.head_dim
        self.add_projections(config.hidden_size, bias)
        self.add_output(config.hidden_size, bias if output_bias is None else output_bias)
        self.has_norms = qk_norm is not None and not self.norms_all_heads
        if qk_norm is not None:
            self.add_norms(partial(qk_norm, eps=config.rms_norm_eps))

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the layers that `project` uses."""
        self.q_proj = Linear(hidden_size, self.query_size, bias=bias)
        self.k_proj = Linear(hidden_size, self.key_size, bias=bias)
        self.v_proj = Linear(hidden_size, self.key_size, bias=bias)

    def add_norms(self, norm: Callable[[int], nn.Module]) -> None:
        """Create the norms of queries and keys."""
        sizes = (self.query_size, self.key_size) if self.norms_all_heads else (self.head_dim,) * 2
        self.q_norm, self.k_norm = map(norm, sizes)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries `(B, T, H * D)`, keys and values `(B, T, K * D)`."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the layer that `project_output` uses."""
        self.o_proj = Linear(self.query_size, hidden_size, bias=bias)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means of values, `(B, T, H * D)`, to `(B, T, hidden_size)`."""
        output: Tensor = self.o_proj(mixed)
        return output

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Return queries `(B, T, H, D)` and keys `(B, T, K, D)` with what depends on their positions."""
        if self.rotation is None:
            return query, key
        cos, sin, _ = step.rotations[self.rotation]
        key = self.rotate(key, cos, sin)
        if self.query_rotation is not None:
            cos, sin, _ = step.rotations[self.query_rotation]
        return self.rotate(query, cos, sin), key

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        return self.project_output(self.attend_projected(*self.project(x), step))

    def attend_projected(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> Tensor:
        """Return weighted means of values `(B, T, H * D)`, given what `project` returns."""
        heads = (*query.shape[:2], -1, self.head_dim)
        query, key, value = query.view(heads), key.view(heads), value.view(heads)
        if self.has_norms:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = self.position(query, key, step)
        lengths = None if self.rotation is None else step.rotations[self.rotation].lengths
        return self.attend(query, key, value, step, lengths)


class AttentionNormingAllHeads(Attention):
    """Attention with norms of queries and keys that apply to all heads together."""

    norms_all_heads = True

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries and keys with norms, and values, as `Attention.project`."""
        query, key, value = super().project(x)
        return self.q_norm(query), self.k_norm(key), value


class AttentionNormingRotated(Attention):
    """Attention whose norms of queries and keys follow the rotation."""

    def __init__(self, config: Any, layer_idx: int, *, bias: bool, output_bias: bool) -> None:
        super().__init__(config, layer_idx, bias=bias, output_bias=output_bias, qk_norm=RMSNorm)
        self.has_norms = False  # before the rotation

    def position(self, query: Tensor, key: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Rotate queries and keys, then normalise them."""
        query, key = super().position(query, key, step)
        return self.q_norm(query), self.k_norm(key)


class GatedAttention(Attention):
    """Attention whose output a gate scales, number by number (Qiu et al. 2025, arXiv 2505.06708).

    The rows of queries contain, head by head, those of the query and those of the gate.
    """

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the layers of queries and gates, keys and values."""
        super().add_projections(hidden_size, bias)
        self.q_proj = Linear(hidden_size, 2 * self.query_size, bias=bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        queries, key, value = self.project(x)
        query, gate = queries.unflatten(-1, (-1, 2, self.head_dim)).unbind(-2)
        mixed = self.attend_projected(query, key, value, step)
        return self.project_output(mixed * torch.sigmoid(gate.flatten(-2)))


class FusedAttention(Attention):
    """Attention with one projection for queries, keys and values, `qkv_proj`."""

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the one projection."""
        self.qkv_proj = Linear(hidden_size, self.query_size + 2 * self.key_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        query, key, value = self.qkv_proj(x).split((self.query_size, self.key_size, self.key_size), dim=-1)
        return query, key, value
