"""The outcome as a record (JSON), as a table in the terminal and as a page of Markdown."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.figures import FIGURES, OURS, Figure
from benchmarks.runner import Outcome

SIDES = list(dict.fromkeys(side for figure in FIGURES for side in figure.sides))
GOOD, BAD = "reached", "missed"
MARKS = {GOOD: "✓", BAD: "✗", "": ""}


def show(value: float | None, unit: str) -> str:
    """Format a value with its unit, in three significant digits."""
    if value is None:
        return "–"
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} {unit}"


def goal_value(figure: Figure, outcome: Outcome) -> float | None:
    """Return the value to reach, or None if there is no goal, or its side was not measured."""
    if figure.goal is None:
        return None
    if figure.goal.of is None:
        return figure.goal.limit
    peer = outcome.value(figure, figure.goal.of)
    return None if peer is None else figure.goal.limit * peer


def verdict(figure: Figure, outcome: Outcome) -> str:
    """Return whether the goal is reached, or an empty string without a goal or a value."""
    goal, ours = goal_value(figure, outcome), outcome.value(figure, OURS)
    if goal is None or ours is None:
        return ""
    return GOOD if (ours >= goal if figure.higher_is_better else ours <= goal) else BAD


def goal_text(figure: Figure) -> str:
    """Format the goal."""
    if figure.goal is None:
        return ""
    sign = "≥" if figure.higher_is_better else "≤"
    if figure.goal.of:
        return f"{sign} {figure.goal.limit:g} × {figure.goal.of}"
    return f"{sign} {figure.goal.limit:g} {figure.unit}"


def record(outcome: Outcome, machine: dict[str, str]) -> dict[str, Any]:
    """Return all measurements, with every sample."""
    return {
        "machine": machine,
        "figures": [
            {
                "title": figure.title,
                "model": figure.model.stem,
                "unit": figure.unit,
                "higher_is_better": figure.higher_is_better,
                "goal": goal_text(figure),
                "verdict": verdict(figure, outcome),
                "sides": {
                    side: {"median": outcome.value(figure, side), "samples": outcome.of(figure, side)}
                    for side in figure.sides
                },
            }
            for figure in FIGURES
        ],
        "failures": {str(job): reason for job, reason in outcome.failures.items()},
    }


def cells(figure: Figure, outcome: Outcome) -> list[str]:
    """Format a row of the table: title, each side, the goal and whether it is reached."""
    values = (show(outcome.value(figure, side), figure.unit) for side in SIDES)
    return [figure.title, *values, f"{goal_text(figure)} {MARKS[verdict(figure, outcome)]}".strip()]


def by_model(outcome: Outcome) -> Iterator[tuple[str, list[Figure]]]:
    """Yield the figures that were measured in order, in groups of successive rows with the same model."""
    measured = [row for row in FIGURES if any(outcome.of(row, side) for side in row.sides)]
    for model, group in groupby(measured, key=lambda figure: figure.model.stem):
        yield model, list(group)


def table(outcome: Outcome) -> Table:
    """Build the table for the terminal."""
    out = Table(title="medians; same file, same threads, same run", box=SIMPLE_HEAD)
    for name in ("", *SIDES, "goal"):
        out.add_column(name, justify="right" if name in SIDES else "left", no_wrap=name in SIDES)
    for model, figures in by_model(outcome):
        out.add_row(f"[bold]{model}[/]")
        for figure in figures:
            out.add_row(*cells(figure, outcome))
        out.add_section()
    return out


def markdown(outcome: Outcome, machine: dict[str, str], pictures: Sequence[str]) -> str:
    """Format the page: pictures, table, machine, and failures."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    header = [line(["", *SIDES, "goal"]), line(["---", *("---:" for _ in SIDES), "---"])]
    tables = [
        "\n".join([f"## {model}\n", *header, *(line(cells(row, outcome)) for row in group)])
        for model, group in by_model(outcome)
    ]
    parts = [
        "# Benchmarks",
        "Medians; same file, same threads, same run. Written by `make bench`.",
        *(f"![{picture}]({picture})" for picture in pictures),
        *tables,
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
    ]
    if outcome.failures:
        parts.append("## Failed\n\n" + "\n".join(f"- {job}: {why}" for job, why in outcome.failures.items()))
    return "\n\n".join(parts) + "\n"
