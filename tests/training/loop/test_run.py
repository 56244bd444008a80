"""Runs repeat exactly, stop at what is not finite, and schedule as transformers does."""

import math

import pytest
import torch
import transformers

from tests.training.loop.small import llama, texts
from torchgguf.training.errors import TrainingError
from torchgguf.training.loop.run import TrainingRun
from torchgguf.training.loop.schedule import learning_rate_share
from torchgguf.training.loop.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-2)


def test_a_run_repeats_exactly():
    runs = []
    for _ in range(2):
        torch.manual_seed(torch.seed())
        run = TrainingRun(llama(attention_dropout=0.2), texts(), SETTINGS)
        run.train()
        runs.append(run)
    assert runs[0].history == runs[1].history
    for left, right in zip(*(run.trained_parameters().values() for run in runs), strict=True):
        assert torch.equal(left, right)


def test_steps_are_those_of_a_plain_loop_with_transformers(tmp_path):
    """The same batches through transformers' model, torch's AdamW and transformers' schedule."""
    data = texts(16, 0)
    run = TrainingRun(model := llama(), data, TrainingSettings(epochs=2, batch_size=16, learning_rate=1e-2))
    model.save_pretrained(tmp_path)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).train()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, 1, 2)
    losses = []
    weight = sum(item.trained for item in data.items)
    for step in range(2):
        total = 0.0
        for item in data.items:
            (text,) = item.samples
            ids, labels = torch.tensor([text.input_ids]), torch.tensor([text.labels])
            loss = peer(ids, labels=labels).loss * item.trained / weight
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * learning_rate_share(step, 2, 0.03, "cosine")
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    assert schedule is not None
    run.train()
    assert run.history.losses == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_learning_rates_are_those_of_transformers(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps, warmup = 40, 4
    peer = {
        "cosine": lambda: transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps),
        "linear": lambda: transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps),
        "constant": lambda: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
    }[name]()
    rates = []
    for _ in range(steps):
        rates.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    ours = [learning_rate_share(step, steps, 0.1, name) for step in range(steps)]
    assert ours[warmup:] == pytest.approx(rates[warmup:])
    assert ours[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])  # no step without effect


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_data(tmp_path):
    model = llama()
    run = TrainingRun(model, texts(8, 0), TrainingSettings(epochs=3, batch_size=8, save_every=1), tmp_path)

    def spoil(progress):
        if progress.step == 2:
            with torch.no_grad():
                model.lm_head.weight[3] = math.nan

    with pytest.raises(
        TrainingError, match=r"the loss is nan in step 3 \(line \d.*last checkpoint is .*step-000002"
    ):
        run.train(spoil)
    assert run.step == 2


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(TrainingError, match=r"no matrix to train: add adapters by add_lora"):
        TrainingRun(llama().requires_grad_(False), texts(), SETTINGS)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0"),
        ({"warmup": 2.0}, "warmup must be from 0 to 1"),
        ({"schedule": "steps"}, "schedule must be one of cosine, linear, constant"),
    ],
)
def test_settings_out_of_range_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        TrainingSettings(**options)
