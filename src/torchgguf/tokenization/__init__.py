"""Tokenizers from GGUF files and from Hugging Face's files, and chat templates."""

from torchgguf._lazy import attach

__getattr__, __dir__ = attach(__name__, globals())
