"""Show the results of packing: new types and sizes, errors, comparisons."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from torchgguf.cli.tables import layers_as_one, show, table
from torchgguf.cli.terminal import note, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from torchgguf.conversion.verification import Verification
    from torchgguf.packing import PackedTensor, PackingReport
    from torchgguf.training.merging import MergedTensor, MergeReport


def show_plan(report: "PackingReport") -> None:
    """Show the types that tensors would get."""
    tensors = _tensors("tensors", report, ["tensors", "was", "type", "bytes"])
    show(tensors, *_sums(report, "would become"))


def show_report(report: "PackingReport", written: Sequence[Path]) -> None:
    """Show the new types and errors of tensors, and the written files."""
    columns = ["tensors", "was", "type", "bytes", "error", "worst"]
    if any(tensor.weighted_error is not None for tensor in report.tensors.values()):
        columns.append("weighted error")
    sizes = [f"{one_line(str(path))}: {path.stat().st_size:,} bytes" for path in written]
    tensors = _tensors("tensors (errors are relative)", report, columns)
    show(tensors, *_sums(report, "have become"), *sizes)


def show_merge(report: "MergeReport") -> None:
    """Show the tensors that adapters change, and what packing left of the changes."""
    groups = defaultdict[tuple[str, str, str], list["MergedTensor"]](list)
    for tensor in report.tensors.values():
        groups[layers_as_one(tensor.name), tensor.source_type.name, tensor.type.name].append(tensor)
    rows = []
    for kind, group in groups.items():
        error = _mean([(tensor.error, math.prod(tensor.shape)) for tensor in group])
        worst = (f"{min(getattr(tensor, figure) for tensor in group):.3f}" for figure in ("kept", "cosine"))
        rows.append((kind[0], f"{len(group):,}", *kind[1:], error, *worst))
    columns = ["name", "tensors", "was", "type", "error", "kept", "cosine"]
    title = "changed tensors (errors of packing are relative; the least of a change that is kept, and cosine)"
    show(table(title, columns, rows))


def show_verification(verification: "Verification") -> None:
    """Show the comparison of a file with its source.

    Raises:
        typer.Exit: the file has problems; the code is 1.
    """
    copied = sum(tensor.copied for tensor in verification.tensors)
    lines = [f"verified: {len(verification.tensors):,} tensors, {copied:,} of them byte-identical"]
    if (worst := verification.worst) is not None:
        types = f"{worst.source_type.name} to {worst.type.name}"
        lines.append(f"largest error: {worst.error:.3%} in {one_line(worst.name)} ({types})")
    if isinstance(logits := verification.logits, str):
        lines.append(f"predictions not compared: {one_line(logits)}")
    else:
        perplexities = f"{logits.perplexity:.4f} (source {logits.source_perplexity:.4f})"
        lines.append(
            f"predictions for {logits.tokens} tokens: mean KL divergence {logits.kl_divergence:.5f}, "
            f"same best token {logits.same_top:.1%}, perplexity {perplexities}"
        )
    show(*lines)
    if verification.problems:
        for problem in verification.problems:
            note(f"error: {one_line(problem)}")
        raise typer.Exit(1)


def _tensors(title: str, report: "PackingReport", columns: list[str]) -> "Table":
    """Return a table with one row for the same tensor of all layers, if their types are the same."""
    groups = defaultdict[tuple[str, str, str], list["PackedTensor"]](list)
    for tensor in report.tensors.values():
        kind = f"{tensor.type.name} for {tensor.wanted.name}" if tensor.fell_back else tensor.type.name
        groups[layers_as_one(tensor.name), tensor.source_type.name, kind].append(tensor)
    rows = []
    for (name, was, kind), group in groups.items():
        weighted = [(tensor.weighted_error, tensor.weights) for tensor in group]
        row = {
            "tensors": f"{len(group):,}",
            "was": was,
            "type": kind,
            "bytes": f"{sum(tensor.nbytes for tensor in group):,}",
            "error": _mean([(tensor.error, tensor.weights) for tensor in group]),
            "worst": _percent(max(tensor.error for tensor in group)),
            "weighted error": _mean([(error, count) for error, count in weighted if error is not None]),
        }
        rows.append((name, *(row[column] for column in columns)))
    return table(title, ["name", *columns], rows)


def _sums(report: "PackingReport", verb: str) -> "list[Table | str]":
    from torchgguf.container.tensors import storage_nbytes

    types = [
        (kind.name, f"{part.tensors:,}", f"{part.weights:,}", f"{part.nbytes:,}")
        for kind, part in report.totals().items()
    ]
    before = sum(storage_nbytes(tensor.shape, tensor.source_type) for tensor in report.tensors.values())
    lines: list[Table | str] = [table("types", ["type", "tensors", "parameters", "bytes"], types)]
    if fallbacks := report.fallbacks:
        lines.append(
            f"tensors whose rows do not divide into the blocks of the recipe's type: {len(fallbacks):,}"
        )
    bits = report.bits_per_weight
    lines.append(f"{before:,} bytes of tensors {verb} {report.nbytes:,}: {bits:.3f} bits per weight")
    return lines


def _mean(errors: Sequence[tuple[float, int]]) -> str:
    """Return the root mean square of relative errors, weighted by numbers of weights; empty without any."""
    if not errors:
        return ""
    squares = sum(error**2 * count for error, count in errors)
    return _percent(math.sqrt(squares / sum(count for _, count in errors)))


def _percent(error: float) -> str:
    return f"{error:.3%}" if error else ""
