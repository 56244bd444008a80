"""Write what is generated from the native part: its stub, and the table of block layouts.

With --check, compare the files with what would be written, and fail where they differ.
"""

import argparse
import difflib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from torchgguf import _native

PACKAGE = Path(__file__).parent.parent / "src" / "torchgguf"
RUFF_CONFIG = PACKAGE.parent.parent / "pyproject.toml"


def stub() -> str:
    """Let nanobind write the stub, and ruff format it as the rest of the package."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "_native.pyi")
        _run("nanobind.stubgen", "-q", "-m", "torchgguf._native", "-o", str(file))
        _run(
            "ruff",
            "check",
            "-q",
            "--fix",
            "--select",
            "I,UP,D200",
            "--unsafe-fixes",
            "--config",
            str(RUFF_CONFIG),
            str(file),
        )
        _run("ruff", "format", "-q", "--config", str(RUFF_CONFIG), str(file))
        return file.read_text()


def layouts() -> str:
    """One line a type and a field."""
    types = []
    for name, layout in _native.layouts().items():
        fields = [f"    {json.dumps(field)}: {json.dumps(at)}" for field, at in layout.pop("fields").items()]
        sizes = json.dumps(layout)[:-1]
        types.append(f'  {json.dumps(name)}: {sizes}, "fields": {{\n' + ",\n".join(fields) + "\n  }}")
    return "{\n" + ",\n".join(types) + "\n}\n"


GENERATED = {PACKAGE / "_native.pyi": stub, PACKAGE / "quants" / "layouts.json": layouts}


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def main() -> int:
    """Write or compare the files; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    status = 0
    for path, generate in GENERATED.items():
        new = generate()
        old = path.read_text() if path.exists() else ""
        if new == old:
            continue
        if not check:
            path.write_text(new)
            continue
        status = 1
        name = str(path.relative_to(PACKAGE.parent.parent))
        print(
            *difflib.unified_diff(old.splitlines(), new.splitlines(), name, "the native part", lineterm=""),
            sep="\n",
        )
        print(f"{name} is stale: python scripts/native_stubs.py writes it anew", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
