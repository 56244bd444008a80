"""Let libFuzzer look for inputs that reach new lines: `python -m fuzz.coverage TARGET [OPTIONS]`.

The targets are those of `fuzz.targets` that load a GGUF file. Options are libFuzzer's: -max_total_time=60. It
keeps what it finds interesting in `fuzz/.coverage`, and a file that ends the process in `crash-...`. It needs
atheris: the extra `fuzz`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import atheris

from fuzz.targets import CORPUS, TARGETS

PACKAGES = tuple(f"torchgguf.{name}" for name in ("container", "hub", "models", "quants", "tokenization"))


def functions() -> Iterator[FunctionType]:
    """Iterate over the functions and methods of all modules that are imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]
    for module in modules:
        for value in [*vars(module).values()]:
            methods = [*vars(value).values()] if isinstance(value, type) else [value]
            for each in map(_plain, methods):
                if isinstance(each, FunctionType) and each.__module__ == module.__name__:
                    yield each


def _plain(method: Any) -> Any:
    method = method.fget if isinstance(method, property) else method
    return getattr(method, "__func__", method)


def main() -> None:
    """Run libFuzzer, which ends the process."""
    name, *options = sys.argv[1:] or ["header"]
    target, grown = TARGETS[name], Path(__file__).parent / ".coverage"
    grown.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-")) / "input.gguf"

    for seed in CORPUS.glob("*.gguf"):
        target.attempt(seed)  # imports what is imported on first use
    # atheris's own import hook does not know the loader of an editable install.
    for function in functions():
        atheris.instrument_func(function)

    def load(data: bytes) -> None:
        scratch.write_bytes(data)
        if (wrong := target.attempt(scratch)) is not None:
            raise AssertionError(wrong)

    limits = ["-rss_limit_mb=4096", "-timeout=20", "-max_len=16384"]
    atheris.Setup([sys.argv[0], *limits, *options, str(grown), str(CORPUS)], load)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
