"""Plots of losses: a PNG by matplotlib, or characters for a terminal."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from torchgguf.container.atomic import atomic_write
from torchgguf.training.loop.history import History

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS, _ROWS = 60, 8


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_losses(history: History, path: Path, title: str = "") -> None:
    """Draw the losses of a training as a PNG.

    Args:
        history: the losses.
        path: the file to create or replace.
        title: stands above.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the system refuses.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120)
    axes = figure.subplots()
    steps = [*range(1, len(history.losses) + 1)]
    axes.plot(steps, history.losses, color="#2a78b5", linewidth=1, alpha=0.45)
    axes.plot(steps, smoothed(history.losses), color="#2a78b5", linewidth=2, label="training")
    if history.held_out:
        measured, losses = [*history.held_out], [*history.held_out.values()]
        axes.plot(measured, losses, color="#c0392b", marker="o", markersize=4, label="held out")
    axes.set(xlabel="step", ylabel=f"loss (nats a {history.unit})", title=title, ylim=(0, None))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    image = BytesIO()
    figure.savefig(image, format="png")
    with atomic_write(path) as file:
        file.write(image.getvalue())


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the means of losses over a tenth of all steps, around each."""
    reach = max(1, len(losses) // 20)
    windows = (losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def text_plot(history: History) -> list[str]:
    """Return lines that show the losses of a training: of each few steps a column."""
    losses = _columns(history.losses)
    if not losses:
        return []
    top = max(losses)
    lines = []
    for row in range(_ROWS, 0, -1):
        heights = (loss / top * _ROWS - (row - 1) if top > 0 else 0.0 for loss in losses)
        bars = "".join(_BARS[round(8 * min(1.0, max(0.0, height)))] for height in heights)
        lines.append(f"{top * row / _ROWS:8.3f} │{bars}")
    lines.append(f"{'':8} └{'─' * len(losses)}")
    lines.append(f"{'':10}step 1 to {len(history.losses)}, loss in nats a {history.unit}")
    return [*lines, *_held_out_lines(history.held_out)]


def _columns(losses: Sequence[float]) -> list[float]:
    """Return the means of about equally many steps each, at most `_COLUMNS`."""
    count = min(_COLUMNS, len(losses))
    ends = [math.floor(i * len(losses) / count) for i in range(count + 1)] if count else []
    return [sum(losses[first:last]) / (last - first) for first, last in pairwise(ends)]


def _held_out_lines(held_out: Mapping[int, float]) -> list[str]:
    if not held_out:
        return []
    shown = ", ".join(f"{loss:.3f} after {step}" for step, loss in held_out.items())
    return [f"{'':10}held out: {shown}"]
