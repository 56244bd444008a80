"""Parts that models are made of: packed layers, norms, rotary embedding, attention, key/value caches."""

from torchgguf.nn.activations import ACTIVATIONS
from torchgguf.nn.attention import ATTENTION, AttentionMask, causal_mask
from torchgguf.nn.cache import DynamicCache
from torchgguf.nn.layers import Embedding, Linear, QuantizedEmbedding, QuantizedLinear
from torchgguf.nn.norm import RMSNorm
from torchgguf.nn.rotary import RotaryEmbedding, rotate

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "AttentionMask",
    "DynamicCache",
    "Embedding",
    "Linear",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "RotaryEmbedding",
    "causal_mask",
    "rotate",
]
