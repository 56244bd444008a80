"""Attention to compressed keys and values (MLA): its config, its rules and its rows.

DeepSeek-V2 (2024, arXiv 2405.04434, section 2.1). Shape letters: B batch, T new positions, S positions seen
including the new ones, H heads, R size of latent vectors, N size of a key without rotation, P rotated size, V
size of a value.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.models.blocks import tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.rope_rule import ROTATED, YarnFactorsRope
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Header, Rule, largest_dimension
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import LatentProjection, Linear, RMSNorm, rotate_neighbours
from torchgguf.nn.cache import KeyValues


@config_dataclass
class LatentConfig(DecoderConfig):
    """Fields of models with this attention, and of their experts; defaults differ.

    Queries pass through vectors of `q_lora_rank` numbers, unless that is None. Keys and values are compressed
    to `kv_lora_rank` numbers, and `qk_rope_head_dim` rotated ones that all heads share. The first
    `first_k_dense_replace` layers use a plain MLP of `intermediate_size` instead of experts.
    """

    attention_bias: bool = False
    q_lora_rank: int | None = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    output_router_logits: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Derive the sizes of heads, and check them."""
        self.head_dim = self.qk_rope_head_dim  # what is rotated
        super().__post_init__(*legacy)
        vars(self)["qk_head_dim"] = self.qk_nope_head_dim + self.qk_rope_head_dim
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError(
                f"num_key_value_heads must be num_attention_heads={self.num_attention_heads}, as all heads "
                f"share what is compressed, got {self.num_key_value_heads}"
            )


class LatentAttention(SelfAttention):
    """Attention to latent vectors, which are all that the cache stores.

    Queries are mapped to latent vectors before they are compared, and means of latent vectors to values after
    it, so that the latent vectors of earlier positions are never expanded.

    Args:
        config: a `LatentConfig`.
        layer_idx: number of the layer.
        rotate: rotates heads by angles: pairs of neighbours, or of halves of a head.
    """

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        rotate: Callable[[Tensor, Tensor, Tensor], Tensor] = rotate_neighbours,
    ) -> None:
        key_size = config.qk_nope_head_dim + config.qk_rope_head_dim
        scaling = key_size**-0.5 * yarn_scaling(config.rope_parameters)
        super().__init__(layer_idx, scaling, config.attention_dropout)
        heads, width, bias = config.num_attention_heads, config.hidden_size, config.attention_bias
        self.rotate = rotate
        self.query_sizes = [config.qk_nope_head_dim, config.qk_rope_head_dim]
        self.latent_size = config.kv_lora_rank
        if config.q_lora_rank is None:
            self.q_proj = Linear(width, heads * key_size, bias=False)
        else:
            self.q_a_proj = Linear(width, config.q_lora_rank, bias=bias)
            # As in transformers, whatever the config's epsilon.
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=1e-6)
            self.q_b_proj = Linear(config.q_lora_rank, heads * key_size, bias=False)
        self.is_compressing_queries = config.q_lora_rank is not None
        self.kv_a_proj_with_mqa = Linear(width, config.kv_lora_rank + config.qk_rope_head_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, eps=1e-6)
        sizes = (config.kv_lora_rank, config.qk_nope_head_dim, config.v_head_dim)
        self.kv_b_proj = LatentProjection(heads, *sizes)
        self.o_proj = Linear(heads * config.v_head_dim, width, bias=bias)

    def project_queries(self, x: Tensor) -> Tensor:
        """Map `(B, T, hidden_size)` to `(B, T, H * (N + P))`."""
        if self.is_compressing_queries:
            query: Tensor = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        else:
            query = self.q_proj(x)
        return query

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        cos, sin, lengths = step.rotations["default"]
        query = self.project_queries(x).unflatten(-1, (-1, sum(self.query_sizes)))
        query, rotated_query = query.split(self.query_sizes, dim=-1)
        latent, key = (
            self.kv_a_proj_with_mqa(x).unsqueeze(2).split([self.latent_size, self.query_sizes[1]], dim=-1)
        )
        latent, key = self.kv_a_layernorm(latent), self.rotate(key, cos, sin)
        rotated_query = self.rotate(rotated_query, cos, sin).transpose(1, 2)
        query = torch.cat((self.kv_b_proj(query.transpose(1, 2), True), rotated_query), dim=-1)
        keys = torch.cat((latent, key), dim=-1).transpose(1, 2)  # (B, 1, T, R + P)
        if step.cache is not None:
            # Values are a part of the keys: those in the cache are empty.
            state = step.cache.state(self.layer_idx, KeyValues)
            keys, _ = state.append(keys, keys[..., :0], lengths)
        output, probabilities = self.compare(query, keys, keys[..., : self.latent_size], step)
        if probabilities is not None:
            step.record.add("attentions", probabilities)
        mixed: Tensor = self.o_proj(self.kv_b_proj(output, False).transpose(1, 2).flatten(2))
        return mixed


def yarn_scaling(parameters: Mapping[str, Any]) -> float:
    """Return YaRN's factor on the scores: 1, unless `mscale_all_dim` is stated."""
    weight = parameters.get("mscale_all_dim")
    if parameters["rope_type"] == "default" or not weight or parameters["factor"] <= 1:
        return 1.0
    return float(0.1 * weight * math.log(parameters["factor"]) + 1.0) ** 2


class LatentRope(YarnFactorsRope):
    """Rotary embedding with YaRN's factors, as files of this architecture state them."""

    unit = 0.1


_QUERY_RANK = "attention.q_lora_rank"
_KEY, _KEY_MLA = "attention.key_length", "attention.key_length_mla"
_VALUE, _VALUE_MLA = "attention.value_length", "attention.value_length_mla"


class LatentSizes(Rule):
    """Maps sizes of queries and keys: files state those of a head that all share, and of expanded heads.

    Files from before 2025-04 state those of expanded heads only, under the keys of the others.
    """

    keys: Sequence[str] = (
        *("attention.head_count_kv", _KEY, _VALUE),
        *(_KEY_MLA, _VALUE_MLA, ROTATED, _QUERY_RANK),
    )

    def read(self, header: Header) -> dict[str, Any]:
        """Read the sizes of expanded heads, and check the others."""
        rank, rotated = header.positive("attention.kv_lora_rank", int), header.positive(ROTATED, int)
        heads = header.positive("attention.head_count", int)
        if header.get(_KEY_MLA, 0):
            key, value, shared = _KEY_MLA, _VALUE_MLA, (1, rank + rotated, rank)
        else:
            key, value = _KEY, _VALUE
            shared = (heads, header.get(_KEY, 0), header.get(_VALUE, 0))
        size, value_size = header.positive(key, int), header.positive(value, int)
        if not rotated < size <= (limit := largest_dimension(header)):
            raise GGUFError(f"{key} = {size} is invalid: {ROTATED} is {rotated}")
        if value_size > limit:
            raise GGUFError(f"{value} = {value_size} is invalid: the largest dimension is {limit}")
        for name, expected in zip(self.keys[:3], shared, strict=True):
            if (stated := header.get(name, expected)) != expected:
                raise GGUFError(f"{name} must be {expected}, got {stated}")
        query_rank = header.get(_QUERY_RANK, 0)
        if not 0 <= query_rank <= limit:
            raise GGUFError(f"{_QUERY_RANK} must be 0 or the size of a tensor, got {query_rank}")
        return {
            "num_key_value_heads": heads,
            "qk_nope_head_dim": size - rotated,
            "qk_rope_head_dim": rotated,
            "v_head_dim": value_size,
            "q_lora_rank": query_rank or None,
        }

    def write(self, config: Any) -> dict[str, Any]:
        """Write all sizes."""
        rank, rotated = config.kv_lora_rank, config.qk_rope_head_dim
        sizes = (1, rank + rotated, rank, config.qk_nope_head_dim + rotated, config.v_head_dim, rotated)
        stated = dict(zip(self.keys, sizes, strict=False))
        return stated if config.q_lora_rank is None else {**stated, _QUERY_RANK: config.q_lora_rank}


LATENT_RULES = (
    *(rule for rule in tables.COMMON_RULES if not {*rule.keys} & {*LatentSizes.keys}),
    LatentSizes(),
    Field("attention.kv_lora_rank", "kv_lora_rank", limit=largest_dimension),
    LatentRope(),
)

LATENT_ROWS = (
    *tables.ATTENTION_OUTPUT,
    *(
        Row(f"blk.{{}}.attn_{gguf}", f"layers.{{}}.self_attn.{hf}")
        for gguf, hf in (
            ("q", "q_proj"),
            ("q_a", "q_a_proj"),
            ("q_a_norm", "q_a_layernorm"),
            ("q_b", "q_b_proj"),
            ("kv_a_mqa", "kv_a_proj_with_mqa"),
            ("kv_a_norm", "kv_a_layernorm"),
            ("k_b", "kv_b_proj.k"),
            ("v_b", "kv_b_proj.v"),
        )
    ),
)
