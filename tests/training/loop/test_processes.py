"""Two processes, started by torchrun, compute the losses of one, on packed weights, whole or in parts."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.training.loop.small import llama

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from tests.training.loop.small import texts
from torchgguf import AutoModelForCausalLM
from torchgguf.training.lora import add_lora
from torchgguf.training.loop.run import TrainingRun
from torchgguf.training.loop.settings import TrainingSettings
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
add_lora(model, r=4)
settings = TrainingSettings(epochs=2, batch_size=8, tokens_per_pass=64, learning_rate=1e-2)
run = TrainingRun(model, texts(), settings, Path(sys.argv[3]), resume=True, parallelism=sys.argv[2])
run.train()
total = sum(float(p.abs().sum()) for p in run.trained_parameters().values())
if run.processes.is_main:
    print(json.dumps([*run.history.losses, *run.history.held_out.values(), total]))
"""


@pytest.mark.slow
def test_two_processes_compute_the_losses_of_one(tmp_path):
    llama().save_gguf(tmp_path / "packed.gguf", quantization="Q8_0")
    (tmp_path / "train.py").write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found = {}
    for name, start in {
        "one": [sys.executable],
        "replicate": torchrun,
        "shard": torchrun,
    }.items():
        how = "shard" if name == "shard" else "replicate"
        arguments = [tmp_path / "train.py", tmp_path / "packed.gguf", how, tmp_path / name]
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [*start, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout.splitlines()[-1])
    assert found["replicate"] == pytest.approx(found["one"], abs=1e-4)
    assert found["shard"] == pytest.approx(found["one"], abs=1e-4)
    assert (tmp_path / "shard" / "step-000006").is_dir()
