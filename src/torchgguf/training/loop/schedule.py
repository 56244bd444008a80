"""The learning rate of each step, as a share of the largest one."""

import math
from collections.abc import Callable


def _constant(progress: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return 1.0 - progress


def _cosine(progress: float) -> float:
    """Fall along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


# From the share of the steps after the warm-up that are done, to the share of the learning rate.
SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": _cosine, "linear": _linear, "constant": _constant}


def learning_rate_share(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Return the learning rate of a step as a share of the largest one.

    Args:
        step: its number, from 0.
        steps: of the whole training.
        warmup: share of the steps in which the rate rises linearly.
        schedule: a name in `SCHEDULES`.
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return SCHEDULES[schedule]((step - rising) / max(1, steps - rising))
