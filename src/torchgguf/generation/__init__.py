"""Generating text: logits processors, sampling, beams, stopping, streaming and the decode loop."""

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.mixin import GenerationMixin
from torchgguf.generation.outputs import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from torchgguf.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StopStringCriteria,
)
from torchgguf.generation.streamers import BaseStreamer, Detokenizer, TextIteratorStreamer, TextStreamer

__all__ = [
    "BaseStreamer",
    "Detokenizer",
    "EosTokenCriteria",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateDecoderOnlyOutput",
    "GenerationConfig",
    "GenerationMixin",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StopStringCriteria",
    "TextIteratorStreamer",
    "TextStreamer",
]
