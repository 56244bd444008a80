"""Parts that models are made of: packed layers, norms, rotary embedding, attention, key/value caches."""

from torchgguf.nn.activations import ACTIVATIONS
from torchgguf.nn.attention import ATTENTION, AttentionFunction, AttentionMask, causal_mask, check_attention
from torchgguf.nn.cache import DynamicCache
from torchgguf.nn.layers import Embedding, Linear, QuantizedEmbedding, QuantizedLinear
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
    "causal_mask",
    "check_attention",
    "rotate",
]
