"""Tell other libraries of our classes as soon as they are imported: before us, or after us.

Libraries such as PEFT and transformers have registers of classes, but find no plugins by entry points. So
what they are told waits until a program imports the module with the register, and costs nothing if none does.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Modules of other libraries, and what is called once they are imported: a module here, and its function.
_REGISTRATIONS = {
    "peft.tuners.lora.model": ("torchgguf.integrations.peft", "register_layers"),
    "transformers.trainer": ("torchgguf.integrations.trainer", "register_saving"),
    "transformers.quantizers.auto": ("torchgguf.integrations.transformers", "register_method"),
    "trl.trainer.utils": ("torchgguf.integrations.trl", "register_heads"),
}


def _run(module: str) -> None:
    source, function = _REGISTRATIONS[module]
    getattr(import_module(source), function)()


class _Finder:
    """Sees the imports that Python makes, and finds none of them itself."""

    def __init__(self, waiting: set[str]) -> None:
        self._waiting = waiting

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that others find for a module, with a loader that registers afterwards."""
        if name not in self._waiting:
            return None
        self._waiting.remove(name)
        spec = find_spec(name)  # of the finders that come after this one
        if spec is not None and spec.loader is not None:
            execute: Callable[[ModuleType], None] = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _run(name)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def watch_imports() -> None:
    """Register with the libraries that are imported, and with the others when they are."""
    waiting = {name for name in _REGISTRATIONS if name not in sys.modules}
    sys.meta_path.insert(0, _Finder(waiting))
    for name in _REGISTRATIONS.keys() - waiting:
        _run(name)
