"""The module paths of transformers, such as `torchgguf.models.llama.modeling_llama`, as names for our own.

Scripts import from them. Python asks the finder here for a module that has no file; what it returns passes
requests for names on to the package that defines them. So there is no file for each path, and nothing is
imported before a name is used.
"""

import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torchgguf._lazy import read_stub

_ROOT = __name__.partition(".")[0]

# The modules of transformers that have no file here, and the package or module that defines their names.
_SOURCES = {
    "cache_utils": "nn",
    "configuration_utils": "models",
    "data": "",
    "data.data_collator": "",
    "generation.configuration_utils": "generation",
    "generation.stopping_criteria": "generation",
    "generation.utils": "generation",
    "hf_argparser": "",
    "modeling_outputs": "models",
    "modeling_utils": "models",
    "models.auto.configuration_auto": "models",
    "models.auto.modeling_auto": "models",
    "models.auto.tokenization_auto": "tokenization",
    "optimization": "",
    "pytorch_utils": "nn",
    "tokenization_python": "tokenization",
    "tokenization_utils": "tokenization",
    "tokenization_utils_base": "tokenization",
    "tokenization_utils_fast": "tokenization",
    "tokenization_utils_tokenizers": "tokenization",
    "trainer": "",
    "trainer_callback": "",
    "trainer_utils": "",
    "training_args": "",
    "utils": "",
    "utils.generic": "models",
    "utils.logging": "logging",
    "utils.quantization_config": "models",
}
_OF_A_MODEL = re.compile(r"models\.(\w+?)(?:\.(modeling|configuration|tokenization)_\1(?:_fast)?)?")


def names_of(*packages: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that looks for names in other packages, one after the other.

    A module of this package uses it if transformers has names in that module that are elsewhere here.
    """

    def get(name: str) -> Any:
        if not (name.startswith("__") and name.endswith("__")):
            for package in packages:
                if hasattr(found := import_module(package), name):
                    return getattr(found, name)
        raise AttributeError(f"{packages[0]} has no {name!r}")

    return get


class _Loader:
    """Makes a module whose names are those of another; the package itself is asked for what that lacks."""

    def __init__(self, source: str) -> None:
        self._source = source

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Define how the module finds names; a module with the name of its source is the source."""
        if module.__name__.rpartition(".")[2] == self._source.rpartition(".")[2]:
            sys.modules[module.__name__] = import_module(self._source)
            return

        module.__doc__ = f"A module path of transformers; the names are those of `{self._source}`."
        get = names_of(*dict.fromkeys((self._source, _ROOT)))
        vars(module).update(__getattr__=get, __dir__=lambda: dir(import_module(self._source)))


class _Finder:
    """Finds the modules that transformers has and that have no file here."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the module of this name, or None if it is unknown."""
        root, _, name = fullname.partition(".")
        if root != _ROOT or (source := _source(name)) is None:
            return None
        model = _OF_A_MODEL.fullmatch(name)
        is_folder = model is not None and model[2] is None
        package = is_folder or any(path.startswith(f"{name}.") for path in _SOURCES)
        loader: Any = _Loader(f"{_ROOT}.{source}".removesuffix("."))
        return ModuleSpec(fullname, loader, is_package=package)


def _source(name: str) -> str | None:
    if (model := _OF_A_MODEL.fullmatch(name)) is not None:
        if model[1] in _model_types() and model[2] != "tokenization":
            return "models"
        if model[2] in (None, "tokenization") and model[1].replace("_", "") in _tokenizers():
            return "tokenization"
    return _SOURCES.get(name)


@cache
def _model_types() -> set[str]:
    """Return the names of transformers' folders: those of the files in `architectures/`, without `_text`."""
    found = (
        re.fullmatch(r".*\.architectures\.(\w+)", path) for path in read_stub(f"{_ROOT}.models").values()
    )
    return {match[1].removesuffix("_text") for match in found if match}


@cache
def _tokenizers() -> set[str]:
    """Return the models, in small letters, whose tokenizers have classes here."""
    found = (re.fullmatch(r"(\w+)Tokenizer(Fast)?", name) for name in read_stub(f"{_ROOT}.tokenization"))
    return {
        *(match[1].lower() for match in found if match),
        *(kind.replace("_", "") for kind in _model_types()),
    }


def install() -> None:
    """Let Python ask the finder for modules that it has not found."""
    finder: Any = _Finder()
    sys.meta_path.append(finder)
