"""Public names that are imported when they are first asked for, as a package's stub lists them.

The stub (`__init__.pyi`, which type checkers and editors read) is the only list of a package's names.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent


def attach(package: str, namespace: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package, and set its `__all__`.

    Args:
        package: name of the package, `__name__` in its `__init__.py`.
        namespace: `globals()` there.
    """
    modules = read_stub(package)
    namespace["__all__"] = sorted(modules)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = value = getattr(import_module(modules[name]), name)
        return value

    return get, lambda: sorted({*namespace, *modules})


def read_stub(package: str) -> dict[str, str]:
    """Return the modules that define a package's public names, by these names.

    `from X import *` in a stub stands for all names in the stub of `X`.
    """
    stub = _ROOT.joinpath(*package.split(".")[1:], "__init__.pyi")
    modules: dict[str, str] = {}
    for line in ast.parse(stub.read_text()).body:
        if isinstance(line, ast.ImportFrom) and line.module is not None:
            for name in line.names:
                modules |= read_stub(line.module) if name.name == "*" else {name.name: line.module}
    return modules
