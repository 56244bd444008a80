"""The benchmarks' tables fit together, and what fails is told."""

import json
from pathlib import Path

import pytest
from benchmarks.figures import FIGURES, OURS, QWEN2, Figure, Goal, Worker, prefill_metric
from benchmarks.runner import Job, Outcome, run
from benchmarks.workers import WORKERS

from benchmarks import report

pytest.importorskip("matplotlib")  # of the development tools alone: `make test-oldest` does without
from benchmarks import lengths_plot, plot

OUR_WORKER, PEER_WORKER, SECOND = Worker("ours"), Worker("peer"), Worker("peer", (("A", "B"),))


def figure(higher_is_better: bool, goal: Goal) -> Figure:
    """A figure with one worker here and two on the peer's side."""
    sides = {OURS: (OUR_WORKER,), "llama.cpp": (PEER_WORKER, SECOND)}
    return Figure("speed", "tok/s", "x", QWEN2, sides, higher_is_better, goal)


def outcome(ours: list[float], peer: list[float], second: list[float]) -> Outcome:
    """What the three workers measured."""
    out = Outcome()
    for worker, samples in ((OUR_WORKER, ours), (PEER_WORKER, peer), (SECOND, second)):
        out.samples[Job(worker, QWEN2)] = {"x": samples} if samples else {}
    return out


def test_every_worker_of_a_figure_exists() -> None:
    named = {worker.function for row in FIGURES for workers in row.sides.values() for worker in workers}
    assert named == WORKERS.keys()


@pytest.mark.parametrize(
    ("higher_is_better", "peer_value", "verdict"), [(True, 40.0, report.GOOD), (False, 30.0, report.BAD)]
)
def test_a_side_counts_with_the_median_of_its_best_worker(
    higher_is_better: bool, peer_value: float, verdict: str
) -> None:
    row = figure(higher_is_better, Goal(1.0, "llama.cpp"))
    measured = outcome([41.0, 10.0, 50.0], [30.0, 29.0, 90.0], [40.0])
    assert measured.value(row, OURS) == 41.0
    assert measured.value(row, "llama.cpp") == peer_value
    assert report.verdict(row, measured) == verdict


def test_what_was_not_measured_has_no_verdict() -> None:
    assert report.verdict(figure(True, Goal(1.0, "llama.cpp")), outcome([41.0], [], [])) == ""


def test_a_failing_worker_is_reported(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    worker = Worker("torchgguf_open")
    row = Figure("open", "s", "open", broken, {OURS: (worker,)})
    measured = run([row], threads=1, rounds=2, quick=False, announce=print)
    reason = measured.failures[Job(worker, broken)]
    assert "GGUF" in reason
    page = report.markdown(measured, {}, ["plot.png"])
    assert reason in page
    assert reason in json.dumps(report.record(measured, {})["failures"])


def test_the_plot_and_the_table_hold_every_figure(tmp_path: Path) -> None:
    measured = Outcome()
    for row in FIGURES:
        for workers in row.sides.values():
            for worker in workers:
                measured.samples[Job(worker, row.model)][row.metric] = [2.0]
    plot.draw(measured, tmp_path / "plot.png", "a machine")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    page = report.markdown(measured, {"CPU": "a machine"}, ["plot.png"])
    assert all(row.title in page for row in FIGURES)


def test_the_picture_of_lengths(tmp_path: Path) -> None:
    """A token costs what its speed says, and nothing is drawn without a measurement."""
    row = next(row for row in FIGURES if row.metric == prefill_metric(1024))
    measured = Outcome()
    assert not lengths_plot.draw(measured, tmp_path / "none.png", "a machine")
    for workers in row.sides.values():
        measured.samples[Job(workers[0], row.model)] = {row.metric: [500.0]}
    points = [(1024, 2.0)]
    assert lengths_plot.costs(measured, row.model.stem) == {OURS: points, "llama.cpp": points}
    assert lengths_plot.draw(measured, tmp_path / "lengths.png", "a machine")
    assert (tmp_path / "lengths.png").stat().st_size > 10_000
    assert not (tmp_path / "none.png").exists()
