"""Run the workers, each in its own process, in turns of the sides; collect their samples."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.figures import Figure, Worker

TIMEOUT = 1200  # prompts of 16,384 tokens take minutes


@dataclass(frozen=True)
class Job:
    """A worker on a model."""

    worker: Worker
    model: Path

    def __str__(self) -> str:
        """Name the worker, its environment and its model, for progress and failures."""
        how = "".join(f" {name}={value}" for name, value in self.worker.environment)
        return f"{self.worker.function}{how} on {self.model.name}"


@dataclass
class Outcome:
    """Samples by job and metric, and the reasons of failures by job."""

    samples: dict[Job, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    failures: dict[Job, str] = field(default_factory=dict)

    def of(self, figure: Figure, side: str) -> list[float]:
        """Return the samples of a figure's side, of its best worker; empty if it was not measured."""
        jobs = (Job(worker, figure.model) for worker in figure.sides.get(side, ()))
        measured = [samples for job in jobs if (samples := self.samples[job].get(figure.metric))]
        choose = max if figure.higher_is_better else min
        return choose(measured, key=median, default=[])

    def value(self, figure: Figure, side: str) -> float | None:
        """Return the median of that side's samples."""
        samples = self.of(figure, side)
        return median(samples) if samples else None


class TimeLimitError(RuntimeError):
    """A process reached its time limit."""


def run_job(job: Job, threads: int, limit: float) -> dict[str, list[float]]:
    """Run one process; return its samples.

    Raises:
        RuntimeError: the process failed; the message contains its last line.
        TimeLimitError: it was stopped after `limit` seconds.
    """
    if not job.model.exists():
        raise RuntimeError(f"{job.model.name} has not been fetched")
    command = [sys.executable, "-m", "benchmarks.workers", job.worker.function, str(job.model), str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **dict(job.worker.environment)}
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=root,
            timeout=limit,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise TimeLimitError(f"took more than {limit:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"exit code {done.returncode}: {said[-1]}")
    samples: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return samples


def run(
    figures: Iterable[Figure], threads: int, rounds: int, quick: bool, announce: Callable[[str], object]
) -> Outcome:
    """Measure every figure `rounds` times.

    In a round the sides take turns, so that a machine that is slow for a while slows all of them.
    """
    rivals = {
        Job(worker, figure.model): [Job(other, figure.model) for other in workers]
        for figure in figures
        for workers in figure.sides.values()
        for worker in workers
        if not (quick and worker.slow)
    }
    outcome, seconds, finished = Outcome(), dict[Job, float](), set[Job]()
    for number, job in product(range(rounds), rivals):
        if job in finished:
            continue
        announce(f"round {number + 1} of {rounds}: {job}")
        # Of two workers of a side, one that takes twice as long as the other is not the best one.
        others = [seconds[rival] for rival in rivals[job] if rival != job and rival in seconds]
        begin, limit = monotonic(), min([TIMEOUT, *(2 * other + 5 for other in others)])
        try:
            for metric, values in run_job(job, threads, limit).items():
                outcome.samples[job].setdefault(metric, []).extend(values)
            seconds[job] = monotonic() - begin
            finished |= {job} if job.worker.slow else set()
        except RuntimeError as error:
            finished.add(job)
            if not (others and isinstance(error, TimeLimitError)):
                outcome.failures[job] = str(error)
    return outcome
