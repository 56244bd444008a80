"""Caches: lists of what the layers of a model remember of a text, their states."""

from torchgguf.nn.cache.cache import Cache, DynamicCache, StaticCache
from torchgguf.nn.cache.encoded import EncodedKeyValues
from torchgguf.nn.cache.kv import KeyValues
from torchgguf.nn.cache.lengths import Lengths
from torchgguf.nn.cache.recurrent import Convolution, Recurrent
from torchgguf.nn.cache.sharing import FixedPlaces, capacity_for
from torchgguf.nn.cache.state import State

__all__ = [
    "Cache",
    "Convolution",
    "DynamicCache",
    "EncodedKeyValues",
    "FixedPlaces",
    "KeyValues",
    "Lengths",
    "Recurrent",
    "State",
    "StaticCache",
    "capacity_for",
]
