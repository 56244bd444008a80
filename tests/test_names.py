"""A public name stands for one thing in the whole package, so that a search finds it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torchgguf

# The reference of an operator and the operator have one name: both do the same, the one slowly.
TWICE = {"dequantize", "quantize"}


def public_names(tree: ast.Module) -> Iterator[str]:
    """Yield the public classes, functions and constants that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        else:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            parts = [part for target in targets if target for part in ast.walk(target)]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_is_defined_once() -> None:
    places = defaultdict(set)
    root = Path(str(torchgguf.__file__)).parent
    for file in root.rglob("*.py"):
        for name in public_names(ast.parse(file.read_text())):
            places[name].add(str(file.relative_to(root)))
    twice = {name: sorted(files) for name, files in places.items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name not in TWICE} == {}
    assert TWICE - twice.keys() == set()  # a name that is defined once leaves the set
