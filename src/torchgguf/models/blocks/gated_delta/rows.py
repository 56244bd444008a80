"""Rows of weight maps: of layers with tiled heads of values, and of layers with fused projections.

Models have the heads of values that use the same key one after the other. Files of `SeparateGatedDeltaNet`
have them tiled: `nn/tiled.py`.
"""

import torch
from torch import Tensor

from torchgguf.models.blocks import nextn, tables
from torchgguf.models.blocks.gated_delta.config import GatedDeltaConfig
from torchgguf.models.core.weight_map import ParameterRow, Row, RowPermutation
from torchgguf.nn import UNIT_OFFSET
from torchgguf.nn.tiled import tiled


def _tiled_heads(config: GatedDeltaConfig, size: int, before: int = 0) -> Tensor:
    places = torch.arange(config.linear_num_value_heads * size)
    return torch.cat((torch.arange(before), before + tiled(places, config.linear_num_key_heads, size)))


def _channels(config: GatedDeltaConfig, rows: int) -> Tensor:
    return _tiled_heads(config, config.linear_value_head_dim, sum(config.linear_sizes[:2]))


def _values(config: GatedDeltaConfig, rows: int) -> Tensor:
    return _tiled_heads(config, config.linear_value_head_dim)


def _heads(config: GatedDeltaConfig, rows: int) -> Tensor:
    return _tiled_heads(config, 1)


# Norms in blocks that predict further tokens.
KEPT_FORMS = dict.fromkeys(
    (
        "input_layernorm",
        "post_attention_layernorm",
        "self_attn.q_norm",
        "self_attn.k_norm",
        "enorm",
        "hnorm",
        "shared_head.norm",
    ),
    UNIT_OFFSET,
)
_COMMON = (
    *tables.STREAM,
    Row("blk.{}.attn_norm", "layers.{}.input_layernorm"),
    Row("blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
    *tables.ATTENTION,
    *tables.QK_NORMS,
    *nextn.NEXTN,
    Row("blk.{}.ssm_norm", "layers.{}.linear_attn.norm"),
    Row("blk.{}.ssm_out", "layers.{}.linear_attn.out_proj"),
)
# With a projection for each part, and tiled heads.
SEPARATE_ROWS = (
    Row("blk.{}.attn_qkv", "layers.{}.linear_attn.in_proj_qkv", RowPermutation(_channels)),
    Row("blk.{}.attn_gate", "layers.{}.linear_attn.in_proj_z", RowPermutation(_values)),
    Row("blk.{}.ssm_beta", "layers.{}.linear_attn.in_proj_b", RowPermutation(_heads)),
    Row("blk.{}.ssm_alpha", "layers.{}.linear_attn.in_proj_a", RowPermutation(_heads)),
    Row("blk.{}.ssm_conv1d", "layers.{}.linear_attn.conv1d", RowPermutation(_channels)),
    ParameterRow("blk.{}.ssm_a", "layers.{}.linear_attn.A_log", RowPermutation(_heads)),
    ParameterRow("blk.{}.ssm_dt.bias", "layers.{}.linear_attn.dt_bias", RowPermutation(_heads)),
    *_COMMON,
)
# With one projection for queries, keys, values and gates.
FUSED_ROWS = (
    Row("blk.{}.attn_qkv", "layers.{}.linear_attn.in_proj_qkvz.qkv"),
    Row("blk.{}.attn_gate", "layers.{}.linear_attn.in_proj_qkvz.gate"),
    Row("blk.{}.ssm_ba", "layers.{}.linear_attn.in_proj_ba"),
    Row("blk.{}.ssm_conv1d", "layers.{}.linear_attn.conv1d"),
    ParameterRow("blk.{}.ssm_a", "layers.{}.linear_attn.A_log"),
    ParameterRow("blk.{}.ssm_dt.bias", "layers.{}.linear_attn.dt_bias"),
    *_COMMON,
)
