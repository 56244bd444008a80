"""One picture: a bar for how many times better torchgguf is than a peer, with both values beside it."""

from functools import partial
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.figures import FIGURES, OURS, Figure
from benchmarks.report import SIDES, show
from benchmarks.runner import Outcome

COLOURS = dict(
    zip(
        (side for side in SIDES if side != OURS),
        ("#8d94a8", "#eda13a", "#2a78b5", "#7a9a6a", "#b5552a", "#5a8f4e"),
        strict=True,
    )
)
INK, PALE = "#222222", "#6b6b6b"
UNITS = ("s", "GB", "tok/s", "M/s")
"""The units that are drawn; ratios of fidelity mean little."""

Bar = tuple[Figure, str, float, float]
"""A figure, a peer, our value, and the peer's."""


def measured_bars(outcome: Outcome) -> list[Bar]:
    """List a bar for every figure and peer with both values."""
    return [
        (figure, peer, ours, theirs)
        for figure in FIGURES
        if figure.unit in UNITS
        for peer in figure.sides
        if peer != OURS
        if (ours := outcome.value(figure, OURS)) and (theirs := outcome.value(figure, peer))
    ]


def ratio_text(ratio: float) -> str:
    """Format a ratio with two significant digits: `12×`, `2.4×`, `0.95×`."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.1f}×" if ratio >= 2 else f"{ratio:.2f}×"


def draw_bar(axes: Axes, height: float, bar: Bar) -> None:
    """Draw a bar from 1 to the ratio, the ratio at its end, and both values at the right edge."""
    figure, peer, ours, theirs = bar
    ratio = ours / theirs if figure.higher_is_better else theirs / ours
    hatch = None if ratio >= 1 else "////"  # behind the peer
    axes.barh(height, ratio - 1, left=1, height=0.78, color=COLOURS[peer], hatch=hatch, edgecolor="white")
    note = partial(axes.annotate, textcoords="offset points", va="center", fontsize=10)
    note(ratio_text(ratio), (max(ratio, 1), height), (5, 0), fontweight="bold", color=INK)
    values = f"{show(ours, figure.unit)}  vs  {show(theirs, figure.unit)}"
    note(values, (1, height), (10, 0), xycoords=("axes fraction", "data"), color=PALE)


def draw(outcome: Outcome, path: Path, subtitle: str) -> None:
    """Draw loading, memory and speed against every measured peer, to a PNG file."""
    bars = measured_bars(outcome)
    if not bars:
        return
    fig, axes = plt.subplots(figsize=(10, 1.3 + 0.36 * len(bars) + 0.1 * len(FIGURES)), dpi=160)
    height, ticks = 0.0, []
    for figure, group in groupby(bars, key=lambda bar: bar[0]):
        first = height
        for bar in group:
            draw_bar(axes, height, bar)
            height += 1
        ticks.append(((first + height - 1) / 2, f"{figure.title}\n{figure.model.stem.split('-Instruct')[0]}"))
        height += 0.55
    decorate(axes, ticks, {peer for _, peer, _, _ in bars}, subtitle)
    fig.savefig(path, bbox_inches="tight", facecolor="white")
    plt.close(fig)


def decorate(axes: Axes, ticks: list[tuple[float, str]], peers: set[str], subtitle: str) -> None:
    """Draw axes, labels, title and legend around the bars."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.7), high * 1.6)
    axes.invert_yaxis()
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=10)
    axes.set_xticks([1, 10, 100], ["as the peer", "10×", "100×"], color=PALE)
    axes.minorticks_off()
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("How many times better torchgguf does", loc="left", fontsize=15, fontweight="bold", pad=38)
    axes.annotate(subtitle, (0, 1), (0, 24), xycoords="axes fraction", textcoords="offset points", color=PALE)
    axes.annotate(
        "torchgguf  vs  peer",
        (1, 1),
        (10, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        color=PALE,
    )
    legend = [Patch(color=colour, label=f"than {peer}") for peer, colour in COLOURS.items() if peer in peers]
    axes.legend(
        handles=legend,
        loc="lower left",
        bbox_to_anchor=(0, 0.995),
        ncols=3,
        frameon=False,
        borderpad=0,
        handlelength=1,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
