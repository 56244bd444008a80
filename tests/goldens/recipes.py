"""Ask llama-quantize what each tensor becomes, for the models in tests/data/recipes.json.gz.

Usage: python -m tests.goldens.recipes PATH_TO_LLAMA_QUANTIZE [PATTERN]

With a pattern, only models whose names match it are asked about anew; all others stay as they are.
It runs on true files: the real models, tiny ones of every architecture in tests/models/tiny.py
and, of others and of larger ones, files whose tensors are holes; with and without an importance matrix.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.goldens.hollow import HEADERS, hollow_file
from tests.models.tiny import CASES, OWN_SIZES, Case, counterpart, reference
from tests.packing.files import EXACT, digest, imatrix, write
from tests.support import QWEN2, ROOT, SMOLLM2
from torchgguf.container import open_gguf
from torchgguf.packing.recipes import ALIASES, RECIPES
from torchgguf.quants import quant_type, quant_types

OUT = ROOT / "tests" / "data" / "recipes.json.gz"
TYPES = [kind.name for kind in quant_types()]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NAMES = [*(name for name in RECIPES if name not in ("MXFP4", "NVFP4")), *ALIASES]
LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) .*?type = +(\w+), size = .*?(?:\((\w+)\))?$", re.MULTILINE)

# Options of `plan_types`, and the recipes that they are tried with.
OPTIONS: list[dict[str, Any]] = [
    {"pure": True},
    {"output_type": "Q5_K"},
    {"token_embedding_type": "Q4_0"},
    {"output_type": "Q8_0", "token_embedding_type": "Q2_K"},
    {"leave_output": True},
    {"pure": True, "output_type": "F16"},
    {"overrides": [["attn_v", "Q8_0"], [r"blk\.[01]\..*_down", "Q5_1"], ["ffn_", "IQ4_XS"]]},
    {"overrides": [["token_embd", "Q6_K"], ["attn_k", "F16"]], "output_type": "Q4_0"},
]
TRIED = ("Q4_K_M", "IQ2_M", "Q3_K_L", "IQ4_NL", "Q8_0", "MXFP4_MOE", "TQ1_0")
FLAGS = {
    "pure": "--pure",
    "leave_output": "--leave-output-tensor",
    "output_type": "--output-tensor-type",
    "token_embedding_type": "--token-embedding-type",
}


def model_files(folder: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    """The names of all models, and what makes their files: real ones, tiny ones, files with holes."""
    yield "SmolLM2", lambda: SMOLLM2
    yield "Qwen2.5-Coder", lambda: QWEN2
    kinds = {case.kind: case for case in reversed(CASES.values())}
    for kind, case in kinds.items():
        wide = {"n_embd": 256} if "n_embd" in OWN_SIZES.get(kind, {}) else {"hidden_size": 256}
        for width, config in (("narrow", {}), ("wide", wide)):
            yield f"{kind}-{width}", partial(tiny_file, Case(kind, case.config | config), folder)
    for name, header in HEADERS.items():
        yield name, partial(hollow_file, header, folder / "hollow.gguf")


def tiny_file(case: Case, folder: Path) -> Path:
    """A file of a tiny model."""
    path = folder / "tiny.gguf"
    counterpart(reference(case)).save_gguf(path)
    return path


def flags(options: Mapping[str, Any]) -> Iterator[str]:
    """Options of `plan_types` as llama-quantize takes them."""
    for name, value in options.items():
        if name == "overrides":
            for pattern, kind in value:
                yield from ("--tensor-type", f"{pattern}={kind}")
        elif value is True:
            yield FLAGS[name]
        else:
            yield from (FLAGS[name], value)


class Oracle:
    """llama-quantize, asked for a plan."""

    def __init__(self, program: str, imatrix: Path) -> None:
        self._program, self._imatrix = program, imatrix

    def types(
        self, path: Path, recipe: str, has_imatrix: bool, options: Mapping[str, Any]
    ) -> dict[str, str] | None:
        """The types of all tensors; None if llama-quantize gives up for want of a fallback."""
        given = ["--imatrix", str(self._imatrix)] if has_imatrix else []
        command = [
            self._program,
            "--dry-run",
            "--allow-requantize",
            *given,
            *flags(options),
            str(path),
            recipe,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stdout + done.stderr
        if "no tensor type fallback is defined" in said:
            return None
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{said[-3000:]}")
        return {name: (new or old).upper() for name, old, new in LINE.findall(said)}


def golden(oracle: Oracle, path: Path) -> dict[str, Any]:
    """What llama-quantize says of a file: a letter a tensor for every recipe."""
    with open_gguf(path) as file:
        architecture = file.metadata["general.architecture"]
        metadata = {
            key: value
            for key, value in file.metadata.items()
            if key == "general.architecture" or key.startswith(f"{architecture}.")
        }
        tensors = {name: (info.shape, info.type.name) for name, info in file.tensors.items()}
    plans = []
    jobs = [(name, matrix, {}) for name in NAMES for matrix in (False, True)]
    jobs += [(name, False, options) for options in OPTIONS for name in TRIED]
    for recipe, has_imatrix, options in jobs:
        if options.get("overrides") and any(
            not any(re.search(pattern, name) for name in tensors) for pattern, _ in options["overrides"]
        ):
            continue
        found = oracle.types(path, recipe, has_imatrix, options)
        if found is None or any(
            shape[-1] % quant_type(found[name]).block_size for name, (shape, _) in tensors.items()
        ):
            continue  # it would give up: in a dry run it does not check types that it was told
        assert found.keys() == tensors.keys(), set(tensors) ^ set(found)
        plans.append(
            [recipe, has_imatrix, options, "".join(LETTERS[TYPES.index(found[name])] for name in tensors)]
        )
    return {
        "metadata": metadata,
        "tensors": [[name, *about] for name, about in tensors.items()],
        "plans": plans,
    }


def written(program: str, folder: Path, recipe: str, *options: str) -> dict[str, Any]:
    """What llama-quantize makes of the tests' file: metadata with their types, digests of tensors."""
    command = [program, *options, "source.gguf", "out.gguf", recipe]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with open_gguf(folder / "out.gguf") as file:
        return {
            "metadata": {key: [value, file.metadata.types[key].name] for key, value in file.metadata.items()},
            "tensors": {name: [info.type.name, digest(file[name])] for name, info in file.tensors.items()},
        }


def main(program: str, pattern: str | None = None) -> None:
    """Write the golden file."""
    program = str(Path(program).resolve())  # it is run in other folders
    known = {} if pattern is None else json.loads(gzip.decompress(OUT.read_bytes()))["models"]
    models = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        imatrix().save(folder / "imatrix.gguf")
        write(folder / "source.gguf")
        files = {name: written(program, folder, name) for name in EXACT}
        files["Q8_0 imatrix"] = written(program, folder, "Q8_0", "--imatrix", "imatrix.gguf")
        oracle = Oracle(program, folder / "imatrix.gguf")
        for name, make in model_files(folder):
            is_new = pattern is None or re.search(pattern, name) is not None
            if is_new or name in known:
                models[name] = golden(oracle, make()) if is_new else known[name]
    content = json.dumps({"types": TYPES, "models": models, "files": files}, separators=(",", ":"))
    OUT.write_bytes(gzip.compress(content.encode(), mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
