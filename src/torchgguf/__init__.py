"""GGUF files as PyTorch models: run them, fine-tune them, write them back."""

from torchgguf import _module_paths, _when_imported
from torchgguf._lazy import attach

__getattr__, __dir__ = attach(__name__, globals())
_module_paths.install()
_when_imported.watch_imports()
