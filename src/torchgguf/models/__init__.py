"""Models: one file an architecture, Auto classes, loading and saving."""

from torchgguf._lazy import attach

__getattr__, __dir__ = attach(__name__, globals())
