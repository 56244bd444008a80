"""One picture: what reading a token costs in prompts of several lengths, for each shape and side."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.figures import FIGURES, LENGTHS, OURS, RECURRENT_SHAPES, prefill_metric
from benchmarks.runner import Outcome

COLOURS = {OURS: "#2a78b5", "llama.cpp": "#eda13a"}


def costs(outcome: Outcome, shape: str) -> dict[str, list[tuple[int, float]]]:
    """Return the milliseconds a token by length, for each side that was measured."""
    found: dict[str, list[tuple[int, float]]] = {}
    for figure in FIGURES:
        lengths = [length for length in LENGTHS if prefill_metric(length) == figure.metric]
        if figure.model.stem == shape and lengths:
            for side in figure.sides:
                if speed := outcome.value(figure, side):
                    found.setdefault(side, []).append((lengths[0], 1000 / speed))
    return found


def draw(outcome: Outcome, path: Path, subtitle: str) -> bool:
    """Draw one panel for each shape, to a PNG file; return whether there was anything to draw."""
    measured = {shape: found for shape in RECURRENT_SHAPES if (found := costs(outcome, shape))}
    if not measured:
        return False
    figure, panels = plt.subplots(1, len(measured), figsize=(5 * len(measured), 4), squeeze=False)
    for axes, (shape, sides) in zip(panels[0], measured.items(), strict=True):
        for side, points in sides.items():
            axes.plot(*zip(*points, strict=True), marker="o", color=COLOURS[side], label=side)
        axes.set_xscale("log", base=2)
        axes.set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS], fontsize=8)
        axes.set_ylim(bottom=0)
        axes.set_title(shape)
        axes.set_xlabel("tokens of the prompt")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("milliseconds a token")
    panels[0][0].legend(frameon=False)
    figure.suptitle(f"Reading prompts: {subtitle}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
