"""GGUF files as PyTorch models: run them, fine-tune them, write them back."""

from torchgguf._lazy import attach

__getattr__, __dir__ = attach(__name__, globals())
