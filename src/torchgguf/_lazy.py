"""Public names that are imported when they are first asked for, as a package's stub lists them.

The stub (`__init__.pyi`, which type checkers and editors read) is the only list of a package's names.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent
# `from MODULE import NAMES`, with names in parentheses or not. To parse stubs by `ast` takes much of a start.
_IMPORT = re.compile(r"^from (\S+) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
_NAME = re.compile(r"(\*|\w+)(?: as \w+)?(?:,|\s|$)")


def attach(package: str, namespace: dict[str, Any]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package, and set its `__all__`.

    Args:
        package: name of the package, `__name__` in its `__init__.py`.
        namespace: `globals()` there.
    """
    modules = read_stub(package)
    root = package.partition(".")[0]
    # `from package import *` does not load other packages.
    namespace["__all__"] = sorted(name for name, path in modules.items() if path.split(".")[0] == root)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        path = modules[name]
        is_module = path == package
        value = import_module(f"{path}.{name}") if is_module else getattr(import_module(path), name)
        namespace[name] = value
        return value

    return get, lambda: sorted({*namespace, *modules})


@cache
def read_stub(package: str) -> Mapping[str, str]:
    """Return the modules that define a package's public names, by these names.

    `from X import *` in a stub stands for all names in the stub of `X`; if it has none, for those that its
    `__init__.py` imports. A name from the package itself is a module in it.
    """
    stub = _ROOT.joinpath(*package.split(".")[1:], "__init__.pyi")
    if not stub.exists():
        stub = stub.with_suffix(".py")
    modules: dict[str, str] = {}
    for module, listed, line in _IMPORT.findall(stub.read_text()):
        for name in _NAME.findall(listed or line):
            modules |= read_stub(module) if name == "*" else {name: module}
    return modules
