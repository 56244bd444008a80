"""A killed, interrupted or failed run goes on as if nothing had happened, or is refused."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.training.loop.small import llama, texts
from torchgguf.training.errors import TrainingError
from torchgguf.training.loop.run import TrainingRun
from torchgguf.training.loop.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=3, batch_size=8, learning_rate=1e-2, save_every=2)
PROGRAM = """
    import os, signal, sys
    from pathlib import Path
    from tests.training.loop.small import llama, texts
    from tests.training.loop.test_checkpoints import SETTINGS
    from torchgguf.training.loop.run import TrainingRun
    run = TrainingRun(llama(), texts(), SETTINGS, Path(sys.argv[1]), resume=True)
    {fault}
"""


def start(fault: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own that has this fault."""
    program = textwrap.dedent(PROGRAM).format(fault=textwrap.dedent(fault))
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def unbroken():
    """A run without faults."""
    run = TrainingRun(llama(), texts(), SETTINGS)
    run.train()
    return run


def resumed(folder: Path) -> TrainingRun:
    run = TrainingRun(llama(), texts(), SETTINGS, folder, resume=True)
    assert run.train()
    return run


KILLED_IN_A_STEP = "run.train(lambda done: done.step == 5 and os.kill(os.getpid(), signal.SIGKILL))"
KILLED_IN_A_CHECKPOINT = """
real = Path.rename
def deadly(path, target):
    if "step-000006" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, target)
Path.rename = deadly
run.train()
"""


@pytest.mark.parametrize("fault", [KILLED_IN_A_STEP, KILLED_IN_A_CHECKPOINT], ids=["step", "checkpoint"])
def test_a_killed_run_goes_on_with_the_losses_of_an_unbroken_one(tmp_path, unbroken, fault):
    done = start(fault, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "step-000004" in names(tmp_path)
    run = resumed(tmp_path)
    assert run.history == unbroken.history
    both = zip(run.trained_parameters().values(), unbroken.trained_parameters().values(), strict=True)
    assert all(left.equal(right) for left, right in both)
    assert names(tmp_path) == ["step-000008", "step-000009"]


def test_ctrl_c_ends_a_run_after_a_step_with_a_checkpoint(tmp_path, unbroken):
    done = start(
        "print(run.train(lambda done: done.step == 2 and os.kill(os.getpid(), signal.SIGINT)))", tmp_path
    )
    assert done.stdout.split() == ["False"], done.stderr
    assert "step-000003" in names(tmp_path)
    assert resumed(tmp_path).history == unbroken.history


def test_a_full_disk_is_one_error_and_earlier_checkpoints_stay(tmp_path, unbroken):
    fault = """
    import resource
    def fill(done):
        if done.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        run.train(fill)
    except OSError as error:
        print(error)
    """
    done = start(fault, tmp_path)
    assert "the checkpoint was not written" in done.stdout, done.stderr
    assert "earlier ones are there" in done.stdout
    assert names(tmp_path) == ["step-000002"]
    assert resumed(tmp_path).history == unbroken.history


def test_a_run_on_other_data_settings_or_models_is_refused(tmp_path):
    TrainingRun(llama(), texts(), TrainingSettings(max_steps=1, batch_size=8), tmp_path).train()
    with pytest.raises(TrainingError, match="has checkpoints of an earlier run: resume it"):
        TrainingRun(llama(), texts(), TrainingSettings(max_steps=1, batch_size=8), tmp_path)
    others = {
        "data": (llama(), texts(seed=1), TrainingSettings(max_steps=1, batch_size=8)),
        r"settings \(batch_size=8\)": (llama(), texts(), TrainingSettings(max_steps=1, batch_size=4)),
        "model": (llama(attention_bias=True), texts(), TrainingSettings(max_steps=1, batch_size=8)),
    }
    for what, (model, data, settings) in others.items():
        with pytest.raises(TrainingError, match=f"is of a run with other {what}: resume it with the same"):
            TrainingRun(model, data, settings, tmp_path, resume=True)


def test_a_broken_checkpoint_is_named(tmp_path):
    settings = TrainingSettings(max_steps=1, batch_size=8)
    TrainingRun(llama(), texts(), settings, tmp_path).train()
    (part,) = tmp_path.glob("step-000001/*.distcp")
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="step-000001 is broken"):
        TrainingRun(llama(), texts(), settings, tmp_path, resume=True)
    (tmp_path / "step-000001" / "run.json").write_text(json.dumps({})[:1])
    with pytest.raises(TrainingError, match="step-000001 is broken"):
        TrainingRun(llama(), texts(), settings, tmp_path, resume=True)
