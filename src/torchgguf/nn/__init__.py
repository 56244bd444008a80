"""Parts that models are made of: packed layers, norms, rotary embedding, attention, key/value caches."""

from torchgguf.nn.activations import ACTIVATIONS
from torchgguf.nn.attention import ATTENTION, AttentionFunction, check_attention
from torchgguf.nn.cache import DynamicCache
from torchgguf.nn.layers import Embedding, Linear, QuantizedEmbedding, QuantizedLinear
from torchgguf.nn.masks import AttentionMask, attention_masks, causal_mask, next_positions
from torchgguf.nn.norm import RMSNorm
from torchgguf.nn.rotary import RotaryEmbedding, rotate

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "AttentionFunction",
    "AttentionMask",
    "DynamicCache",
    "Embedding",
    "Linear",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "RotaryEmbedding",
    "attention_masks",
    "causal_mask",
    "check_attention",
    "next_positions",
    "rotate",
]
