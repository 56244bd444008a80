"""`python -m benchmarks.packing_perplexity`: how much packing changes predictions, beside llama-quantize.

SmolLM2, unpacked to F32, is packed by each recipe with and without an importance matrix, by llama-quantize
and here; llama.cpp then reads a text with both files. The figures are perplexity and mean Kullback–Leibler
divergence from the F32 file, in nats. Both texts are Python's own help: half of its topics make the
importance matrix, llama.cpp reads the others. A recipe takes some minutes; the record keeps known results.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

from benchmarks.__main__ import RESULTS
from benchmarks.figures import SMOLLM2
from benchmarks.machine import describe

from build_llama_cpp import BUILT, build_with_bar  # isort: skip
from torchgguf.container import open_gguf
from torchgguf.conversion import requantize
from torchgguf.packing import Quantization
from torchgguf.packing.recipes import RECIPES as ALL_RECIPES, SINGLE_TYPES

# All lossy recipes of llama-quantize; it requires importances for the second list.
RECIPES = tuple(
    name for name, each in ALL_RECIPES.items() if each.type.dtype is None and name not in SINGLE_TYPES
)
NEED_IMATRIX = ("Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
CALIBRATION_CHUNKS = 60
LLAMA_CPP, OURS = "llama.cpp", "torchgguf"
RECORD, PAGE = RESULTS / "packing-perplexity.json", RESULTS / "packing-perplexity.md"

Row = dict[str, Any]


class Workshop:
    """A folder with the F32 file, the texts, the importance matrix and the logits to compare with."""

    def __init__(self, folder: Path, threads: int, chunks: int) -> None:
        """Create the files that do not exist yet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.threads = folder, str(threads)
        self.source, self.imatrix = folder / "f32.gguf", folder / "imatrix.gguf"
        self.text, self.logits = folder / "test.txt", folder / f"base-{chunks}.kld"
        if not self.source.exists():
            requantize(SMOLLM2, self.source, Quantization("F32", allow_requantize=True))
        names = sorted(topics)
        calibration = folder / "calibration.txt"
        calibration.write_text("\n\n".join(topics[name] for name in names[::2]))
        self.text.write_text("\n\n".join(topics[name] for name in names[1::2]))
        if not self.imatrix.exists():
            run(
                "llama-imatrix",
                *("-m", self.source, "-f", calibration, "-o", self.imatrix),
                *("-t", self.threads, "--chunks", CALIBRATION_CHUNKS),
            )
        self.measured: dict[str, Row] = {}
        self.read = ("-f", self.text, "-t", self.threads, "--kl-divergence-base", self.logits)
        if not self.logits.exists():
            run("llama-perplexity", "-m", self.source, *self.read, "--chunks", chunks)

    def pack(self, side: str, recipe: str, weighted: bool) -> Path:
        """Pack the F32 file by one side."""
        out = self.folder / f"{side}.gguf"
        out.unlink(missing_ok=True)
        if side == OURS:
            requantize(self.source, out, Quantization(recipe, self.imatrix if weighted else None))
        else:
            options = ("--imatrix", self.imatrix) if weighted else ()
            run("llama-quantize", *options, self.source, out, recipe, self.threads)
        return out

    def measure(self, model: Path) -> Row:
        """Measure with llama.cpp how this model predicts the text, against the F32 one."""
        key = fingerprint(model)
        if key not in self.measured:
            self.measured[key] = self._measure(model)
        return self.measured[key]

    def _measure(self, model: Path) -> Row:
        said = run("llama-perplexity", "-m", model, *self.read, "--kl-divergence")
        patterns = {
            "perplexity": r"Mean PPL\(Q\)\s*:\s*([\d.]+)",
            "divergence": r"Mean\s+KLD:\s*([\d.]+)",
            "uncertainty": r"Mean\s+KLD:\s*[\d.]+ ±\s*([\d.]+)",
            "same_top": r"Same top p:\s*([\d.]+)",
        }
        return {name: float(re.findall(pattern, said)[0]) for name, pattern in patterns.items()}


def fingerprint(model: Path) -> str:
    """Return a digest of the file's tensors: files with equal tensors are measured once."""
    digest = hashlib.sha256()
    with open_gguf(model) as file:
        for name, info in sorted(file.tensors.items()):
            digest.update(f"{name} {info.type.name} {info.shape};".encode())
            digest.update(file[name].contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def run(tool: str, *arguments: object) -> str:
    """Return the output of one of llama.cpp's tools.

    Raises:
        RuntimeError: the tool failed; the message contains its last line.
    """
    command = [str(BUILT / "bin" / tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"{tool}: exit code {done.returncode}: {said[-1]}")
    return done.stdout + done.stderr


def page(rows: list[Row], machine: dict[str, str], chunks: int) -> str:
    """Format the rows as a page of Markdown."""
    by_side = {(row["recipe"], row["weighted"], row["side"]): row for row in rows}
    lines = [
        "# What packing costs",
        f"SmolLM2-135M-Instruct, unpacked to F32, packed by llama-quantize and by torchgguf. llama.cpp reads "
        f"{chunks * 512} tokens with both files; the divergence is from the F32 file, in nats. Written by "
        "`python -m benchmarks.packing_perplexity`.",
        "| recipe | importance matrix | perplexity, llama.cpp | torchgguf | ratio | divergence, llama.cpp "
        "| torchgguf | same top token, llama.cpp | torchgguf |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (recipe, weighted, side), theirs in by_side.items():
        ours = by_side.get((recipe, weighted, OURS))
        if side == OURS or ours is None:
            continue
        lines[-1] += (
            f"\n| {recipe} | {'yes' if weighted else 'no'} | {theirs['perplexity']:.3f} "
            f"| {ours['perplexity']:.3f} | {ours['perplexity'] / theirs['perplexity']:.4f} "
            f"| {theirs['divergence']:.5f} ± {theirs['uncertainty']:.5f} "
            f"| {ours['divergence']:.5f} ± {ours['uncertainty']:.5f} "
            f"| {theirs['same_top']:.1f} % | {ours['same_top']:.1f} % |"
        )
    lines += ["## Machine", "\n".join(f"- {name}: {value}" for name, value in machine.items())]
    return "\n\n".join(lines) + "\n"


def main() -> int:
    """Measure what the record does not contain yet."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packing_perplexity", description=(__doc__ or "").partition(":")[2]
    )
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    parser.add_argument("--chunks", type=int, default=40, help="how often 512 tokens are read (default 40)")
    parser.add_argument("--folder", type=Path, default=BUILT.parent / "packing", help="2 GB of working files")
    parser.add_argument("--importances", choices=("yes", "no", "both"), default="both", help="default: both")
    parser.add_argument("--again", action="store_true", help="forget the results so far")
    args = parser.parse_args()
    record = {} if args.again or not RECORD.exists() else json.loads(RECORD.read_text())
    if record.get("chunks", args.chunks) != args.chunks:
        parser.error(f"the record is of {record['chunks']} chunks: --again forgets it")
    rows: list[Row] = record.get("rows", [])
    known = {(row["recipe"], row["weighted"], row["side"]) for row in rows}
    build_with_bar()
    workshop = Workshop(args.folder, args.threads, args.chunks)
    machine = describe(args.threads)
    weighting = {"yes": (True,), "no": (False,), "both": (True, False)}[args.importances]
    for recipe, weighted, side in product(args.recipes, weighting, (LLAMA_CPP, OURS)):
        if (recipe, weighted, side) in known or (recipe in NEED_IMATRIX and not weighted):
            continue
        measured = workshop.measure(workshop.pack(side, recipe, weighted))
        rows.append({"recipe": recipe, "weighted": weighted, "side": side, **measured})
        print(f"{recipe} {'with' if weighted else 'without'} importances, {side}: {measured}", flush=True)
        RECORD.write_text(
            json.dumps({"chunks": args.chunks, "machine": machine, "rows": rows}, indent=1) + "\n"
        )
        PAGE.write_text(page(rows, machine, args.chunks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
