"""GGUF files as PyTorch models: run them, fine-tune them, write them back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchgguf.container import GGUFError, open_gguf, write_gguf
    from torchgguf.generation import GenerationConfig, TextIteratorStreamer, TextStreamer
    from torchgguf.models import AutoConfig, AutoModelForCausalLM
    from torchgguf.tokenization import AutoTokenizer

# Where each public name is. It is imported when first asked for, so that `import torchgguf` costs nothing.
_MODULES = {
    "torchgguf.container": ("GGUFError", "open_gguf", "write_gguf"),
    "torchgguf.generation": ("GenerationConfig", "TextIteratorStreamer", "TextStreamer"),
    "torchgguf.models": ("AutoConfig", "AutoModelForCausalLM"),
    "torchgguf.tokenization": ("AutoTokenizer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "GGUFError",
    "GenerationConfig",
    "TextIteratorStreamer",
    "TextStreamer",
    "open_gguf",
    "write_gguf",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
