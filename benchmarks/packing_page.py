"""`python -m benchmarks.packing_page`: speed and errors of packing every type, beside ggml's."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from math import exp, log
from pathlib import Path
from statistics import fmean, median

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.fidelity import licence_text
from benchmarks.figures import GGML_BUILDS, OURS, QWEN2, SMOLLM2
from benchmarks.packing import Ggml, Matrix, Pack, cases, matrices, speed
from torchgguf import AutoModelForCausalLM, AutoTokenizer, _native
from torchgguf.conversion.importance import collect_importance
from torchgguf.quants import QuantType, dequantize, quantize

LAYERS = {QWEN2: (0, 11, 23), SMOLLM2: (0, 14, 29)}
RESULTS = Path(__file__).parent / "results"
NOISE = 1e-8  # of the mean square; smaller errors come from float32 sums, and count as this one


@dataclass(frozen=True)
class Row:
    """The measurements of a type."""

    name: str
    weighted: bool
    speeds: dict[str, list[float]]
    """Of each side, million weights a second."""
    plain_errors: list[float]
    """Mean squared errors, ours divided by ggml's, of each matrix."""
    weighted_errors: list[float]
    """The same, weighted by the importances."""


def importances(model: Path) -> dict[str, Tensor]:
    """Compute the mean squares of the inputs of each matrix while the model reads a licence."""
    tokens = AutoTokenizer.from_pretrained(model).encode(licence_text())
    matrix = collect_importance(AutoModelForCausalLM.from_pretrained(model), tokens)
    return {name: importance for name in matrix if (importance := matrix.get(name)) is not None}


def errors(pack: Pack, kind: QuantType, weighted: bool, matrix: Matrix) -> tuple[float, float]:
    """Compute the mean squared error, plain and weighted."""
    packed = pack(matrix.weights, kind, matrix.importance if weighted else None)
    squares, errors = matrix.weights.double() ** 2, (dequantize(packed, kind).double() - matrix.weights) ** 2
    plain, by_importance = (
        max((errors * w).mean().item(), (NOISE * squares * w).mean().item()) for w in (1, matrix.importance)
    )
    return plain, by_importance


def measure(
    kind: QuantType,
    weighted: bool,
    sides: Mapping[str, Pack],
    timed: list[Matrix],
    judged: list[Matrix],
    rounds: int,
) -> Row:
    """Measure one row; the sides take turns, so that a machine that is slow for a while slows all of them."""
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for _, (side, pack) in product(range(rounds), sides.items()):
        speeds[side].append(speed(pack, kind, weighted, timed))
    ours, ggml, *_ = sides.values()
    pairs = [(errors(ours, kind, weighted, m), errors(ggml, kind, weighted, m)) for m in judged]
    plain, by_importance = ([a[i] / b[i] for a, b in pairs] for i in range(2))
    return Row(kind.name, weighted, speeds, plain, by_importance)


def cells(row: Row) -> list[str]:
    """Format a row of the table."""
    ours, *ggml = (median(samples) for samples in row.speeds.values())

    def spread(ratios: list[float]) -> str:
        return f"{exp(fmean(map(log, ratios))):.3f} ({max(ratios):.3f})"

    speeds = [f"{million:.3g}" for million in (ours, *ggml)] + [f"{ours / max(ggml):.2f}"]
    return [
        row.name,
        "yes" if row.weighted else "no",
        *speeds,
        *map(spread, (row.plain_errors, row.weighted_errors)),
    ]


def page(rows: list[Row], described: Mapping[str, str], judged: int) -> str:
    """Format the page in Markdown."""
    head = ["type", "importances", *rows[0].speeds, "× the faster one", "plain error", "weighted error"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *map(cells, rows)]
    parts = [
        "# Packing every type",
        "Million weights a second on the same matrices and threads, medians: here, by ggml as llama.cpp "
        "builds it, and by ggml compiled for this CPU. Then mean squared errors, ours divided by ggml's: the "
        f"geometric mean of {judged} matrices, and the worst. Packing minimises the weighted error if "
        "there are importances, otherwise the plain one. Written by `python -m benchmarks.packing_page`.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in described.items()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Measure, and write the record and the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packing_page", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of every side (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns (default 3)")
    parser.add_argument(
        "--isa", default=_native.isas()[-1], help="our instruction set (default: the best one)"
    )
    parser.add_argument("--types", nargs="+", default=(), metavar="NAME", help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _native.set_isa(args.isa)
    described = machine.describe(args.threads)
    ggml = {f"ggml, {build}": Ggml(library, args.threads) for build, library in GGML_BUILDS.items()}
    sides: dict[str, Pack] = {OURS: quantize, **ggml}
    timed = matrices(QWEN2, (5,))
    judged = [m for model, layers in LAYERS.items() for m in matrices(model, layers, importances(model))]
    rows = []
    for kind, weighted in cases(tuple(args.types)):
        rows.append(measure(kind, weighted, sides, timed, judged, args.rounds))
        print(*cells(rows[-1]), sep=" | ", flush=True)
    path = RESULTS / f"packing-{args.isa}-{args.threads}-threads"
    record = {
        "machine": described,
        "matrices": [m.name for m in judged],
        "rows": [asdict(row) for row in rows],
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(rows, described, len(judged)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
