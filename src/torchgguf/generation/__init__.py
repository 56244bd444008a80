"""Generating text: logits processors, sampling, stopping, streaming and the decode loop."""

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.mixin import GenerationMixin
from torchgguf.generation.stopping import EosTokenCriteria, MaxLengthCriteria, StopStringCriteria
from torchgguf.generation.streamers import BaseStreamer, Detokenizer, TextIteratorStreamer, TextStreamer

__all__ = [
    "BaseStreamer",
    "Detokenizer",
    "EosTokenCriteria",
    "GenerationConfig",
    "GenerationMixin",
    "MaxLengthCriteria",
    "StopStringCriteria",
    "TextIteratorStreamer",
    "TextStreamer",
]
