"""Parts that models are made of: packed layers, norms, rotary embedding, attention, key/value caches."""

from torchgguf.nn.activations import find_activation
from torchgguf.nn.alibi import alibi_mask, alibi_slopes
from torchgguf.nn.attention import ATTENTION_FUNCTIONS, AttentionFunction, check_attention
from torchgguf.nn.cache import (
    Cache,
    Convolution,
    DynamicCache,
    EncodedKeyValues,
    KeyValues,
    Lengths,
    Recurrent,
    State,
    StaticCache,
)
from torchgguf.nn.convolution import CausalConv1d
from torchgguf.nn.correction import CorrectedGate, CorrectionBias, WideGate
from torchgguf.nn.experts import Experts, Gate, QuantizedExperts, load_balancing_loss
from torchgguf.nn.file_forms import NEGATIVE_EXP, UNIT_OFFSET, FileForm, FormedLayer
from torchgguf.nn.fused_experts import FusedExperts, QuantizedFusedExperts
from torchgguf.nn.gated_norm import GatedGroupRMSNorm
from torchgguf.nn.latent import LatentProjection, QuantizedLatentProjection
from torchgguf.nn.layers import (
    Conv1D,
    Embedding,
    Linear,
    QuantizedConv1D,
    QuantizedEmbedding,
    QuantizedLinear,
)
from torchgguf.nn.masks import (
    AttentionMask,
    attention_masks,
    bidirectional_mask,
    causal_mask,
    new_padding,
    next_positions,
)
from torchgguf.nn.norm import (
    GatedRMSNorm,
    HeadwiseLayerNorm,
    LayerNorm,
    RMSNorm,
    UnitOffsetLayerNorm,
    UnitOffsetRMSNorm,
    WideRMSNorm,
    unweighted_rms_norm,
)
from torchgguf.nn.outputs import ModelOutput
from torchgguf.nn.padding import Padding
from torchgguf.nn.pooling import POOLINGS, pool_states
from torchgguf.nn.recurrence import (
    causal_convolution,
    gated_delta_rule,
    selective_scan,
    state_space_scan,
)
from torchgguf.nn.rotary import RotaryEmbedding, Rotation, rotate, rotate_neighbours
from torchgguf.nn.second_names import accept_second_names
from torchgguf.nn.slots import PackedLayer, Slot, SlottedLayer
from torchgguf.nn.ungated_experts import QuantizedUngatedExperts, UngatedExperts

__all__ = [
    "ATTENTION_FUNCTIONS",
    "NEGATIVE_EXP",
    "POOLINGS",
    "UNIT_OFFSET",
    "AttentionFunction",
    "AttentionMask",
    "Cache",
    "CausalConv1d",
    "Conv1D",
    "Convolution",
    "CorrectedGate",
    "CorrectionBias",
    "DynamicCache",
    "Embedding",
    "EncodedKeyValues",
    "Experts",
    "FileForm",
    "FormedLayer",
    "FusedExperts",
    "Gate",
    "GatedGroupRMSNorm",
    "GatedRMSNorm",
    "HeadwiseLayerNorm",
    "KeyValues",
    "LatentProjection",
    "LayerNorm",
    "Lengths",
    "Linear",
    "ModelOutput",
    "PackedLayer",
    "Padding",
    "QuantizedConv1D",
    "QuantizedEmbedding",
    "QuantizedExperts",
    "QuantizedFusedExperts",
    "QuantizedLatentProjection",
    "QuantizedLinear",
    "QuantizedUngatedExperts",
    "RMSNorm",
    "Recurrent",
    "RotaryEmbedding",
    "Rotation",
    "Slot",
    "SlottedLayer",
    "State",
    "StaticCache",
    "UngatedExperts",
    "UnitOffsetLayerNorm",
    "UnitOffsetRMSNorm",
    "WideGate",
    "WideRMSNorm",
    "accept_second_names",
    "alibi_mask",
    "alibi_slopes",
    "attention_masks",
    "bidirectional_mask",
    "causal_convolution",
    "causal_mask",
    "check_attention",
    "find_activation",
    "gated_delta_rule",
    "load_balancing_loss",
    "new_padding",
    "next_positions",
    "pool_states",
    "rotate",
    "rotate_neighbours",
    "selective_scan",
    "state_space_scan",
    "unweighted_rms_norm",
]
