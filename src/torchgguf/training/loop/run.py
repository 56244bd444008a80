"""`TrainingRun`: the steps of a training, with checkpoints."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.interrupts import first_interrupt_noted
from torchgguf.training.data import Item, TrainingData
from torchgguf.training.errors import TrainingError
from torchgguf.training.loop.batch_loss import BatchLoss
from torchgguf.training.loop.batches import Batch, distribute, make_batch
from torchgguf.training.loop.checkpoints import RunCheckpoints
from torchgguf.training.loop.history import History
from torchgguf.training.loop.identity import difference, identity_of
from torchgguf.training.loop.objectives import PAIRS, TOKENS
from torchgguf.training.loop.plan import StepPlan, step_seed
from torchgguf.training.loop.processes import Parallelism, Processes, whole
from torchgguf.training.loop.schedule import learning_rate_share
from torchgguf.training.loop.settings import TrainingSettings

_PLACES_SHOWN = 8


@dataclass(frozen=True)
class Progress:
    """What is known after a step.

    Attributes:
        step: the number of steps done.
        steps: the number of all steps.
        loss: of the step, before it.
        held_out: the last loss on held-out data, or None.
        learning_rate: of the step.
        grad_norm: the norm of the gradients before clipping.
        tokens_per_second: tokens that went through the model, of all processes.
        checkpoint: the checkpoint that was written after the step, or None.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None
    learning_rate: float
    grad_norm: float
    tokens_per_second: float
    checkpoint: Path | None


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step has computed, the same in all processes."""

    loss: float
    grad_norm: float
    learning_rate: float
    is_last: bool


class TrainingRun:
    """Trains those parameters of a model that have gradients: adapters, or all.

    Args:
        model: with a language head.
        data: to train on.
        settings: how to train.
        folder: for checkpoints; None: there are none.
        resume: whether to continue from the newest checkpoint in the folder, if there is one.
        parallelism: how several processes hold the model, see `Parallelism`.

    Attributes:
        history: the losses so far.
        step: the number of steps done.
        checkpoints: the checkpoints, or None.
        packs: whether short samples share a row.
        processes: those that train the model together.

    Raises:
        TrainingError: there is nothing to train, or the folder has checkpoints of another run.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        settings: TrainingSettings,
        folder: Path | None = None,
        *,
        resume: bool = False,
        parallelism: Parallelism | str = Parallelism.replicate,
    ) -> None:
        if not any(parameter.requires_grad for parameter in model.parameters() if parameter.dim() > 1):
            ways = "add adapters by add_lora(model), or unpack it by model.dequantize()"
            raise TrainingError(f"the model has no matrix to train: {ways}")
        any_model: Any = model
        self.model = any_model
        self.settings = settings
        self.processes = Processes(self.model.device, Parallelism(parallelism))
        self.checkpoints = None if folder is None else RunCheckpoints(folder, self.processes, settings.keep)
        self.packs = settings.packing and can_pack(self.model)
        self._objective = PAIRS if data.is_preference else TOKENS
        self._identity = identity_of(self.model, data, settings)
        start = self._find_start(resume)
        if settings.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self._losses = BatchLoss(self.model)
        base = self.model.base_model
        self.processes.prepare(self._losses, getattr(base, getattr(base, "layers_name", ""), ()))
        self._trained = {n: p for n, p in self._losses.named_parameters() if p.requires_grad}
        self._optimizer = self._make_optimizer()
        self.data = self._with_references(data) if data.is_preference else data
        self._plan = StepPlan(self.data.items, settings)
        self.step = 0
        self.history = History(unit=self._objective.unit)
        if start is not None:
            self._load(start)

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return self._plan.steps

    def train(self, on_step: Callable[[Progress], object] | None = None) -> bool:
        """Train until the last step.

        Ctrl-C ends the training after the step in progress, with a checkpoint. A second one interrupts at
        once.

        Args:
            on_step: is called after each step, in the first process.

        Returns:
            Whether all steps are done.

        Raises:
            TrainingError: the loss or a gradient is not finite. The parameters are those before the step.
            OSError: a checkpoint could not be written.
        """
        self.model.train()
        device = self.model.device
        devices = [device] if device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), first_interrupt_noted() as interrupted:
                if not self.history.held_out:
                    self._measure()
                while self.step < self.steps:
                    begin = time.perf_counter()
                    done = self._take_step(interrupted.is_set)
                    took = time.perf_counter() - begin
                    if self._plan.is_due(self.step, self.settings.eval_every):
                        self._measure()
                    due = done.is_last or self._plan.is_due(self.step, self.settings.save_every)
                    saved = self._save() if due else None
                    if on_step is not None and self.processes.is_main:
                        on_step(self._progress(done, took, saved))
                    if done.is_last:
                        break
        finally:
            self.model.eval()
        return self.step == self.steps

    def trained_parameters(self) -> dict[str, Tensor]:
        """Return the trained parameters by their names in the model, whole; all processes must call this."""
        return {name.removeprefix("model."): whole(p.detach()) for name, p in self._trained.items()}

    def _take_step(self, asks_to_stop: Callable[[], bool]) -> _Step:
        settings, objective = self.settings, self._objective
        torch.manual_seed(step_seed(settings.seed, self.step, self.processes.rank))
        items = self._plan.items(self.step)
        weight = sum(map(objective.weight, items))
        losses: list[tuple[Tensor, Batch]] = []
        for batch in self._batches(items):
            loss = objective.total(self._losses, batch, settings.beta) * (batch.counts / weight)
            (loss * self.processes.gradient_factor).backward()
            losses.append((loss.detach(), batch))
        self.processes.reduce_gradients(self._trained.values())
        own = [sum(loss.item() for loss, _ in losses), float(asks_to_stop())]
        loss_of_all, stopping = self.processes.total(own)
        limit = settings.max_grad_norm or math.inf
        norm = float(whole(nn.utils.clip_grad_norm_(self._trained.values(), limit)))
        if not (math.isfinite(loss_of_all) and math.isfinite(norm)):
            self._optimizer.zero_grad()
            self._complain(loss_of_all, norm, losses, items)
        rate = settings.learning_rate * learning_rate_share(
            self.step, self.steps, settings.warmup, settings.schedule
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self.history.losses.append(loss_of_all)
        return _Step(loss_of_all, norm, rate, stopping > 0)

    def _progress(self, done: _Step, took: float, saved: Path | None) -> Progress:
        tokens = sum(item.length for item in self._plan.items(self.step - 1))
        held_out = next(reversed(self.history.held_out.values()), None)
        rate, norm = done.learning_rate, done.grad_norm
        return Progress(self.step, self.steps, done.loss, held_out, rate, norm, tokens / took, saved)

    def _batches(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the batches of this process; each process has as many."""
        capacity, size = self.settings.tokens_per_pass, self.processes.size
        for group in distribute(items, capacity, self.packs, size)[self.processes.rank :: size]:
            yield make_batch(group or items[:1], self.packs, self.model.device, counts=bool(group))

    @torch.no_grad()
    def _measure(self) -> None:
        """Measure the loss on held-out data."""
        items = self.data.held_out
        if not items:
            return
        self.model.eval()
        own = 0.0
        for batch in self._batches(items):
            loss = self._objective.total(self._losses, batch, self.settings.beta)
            own += loss.item() * batch.counts
        self.model.train()
        (total,) = self.processes.total([own])
        self.history.held_out[self.step] = total / sum(map(self._objective.weight, items))

    @torch.no_grad()
    def _with_references(self, data: TrainingData) -> TrainingData:
        """Return pairs with their log-probabilities by the model as it is now."""
        self.model.eval()
        items = data.everything()
        numbers = {id(item): 2 * number for number, item in enumerate(items)}
        found = [0.0] * (2 * len(items))
        for batch in self._batches(items):
            both = (-self._losses(batch, by_sample=True)).tolist()
            for i, item in enumerate(batch.items if batch.counts else ()):
                place = numbers[id(item)]
                found[place : place + 2] = both[2 * i : 2 * i + 2]
        found = self.processes.total(found)
        return data.with_references(list(zip(found[::2], found[1::2], strict=True)))

    def _make_optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for p in self._trained.values() if p.dim() > 1]
        others = [p for p in self._trained.values() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate)

    def _complain(
        self, loss: float, norm: float, losses: Sequence[tuple[Tensor, Batch]], items: Sequence[Item]
    ) -> None:
        found = next((batch.items for each, batch in losses if not torch.isfinite(each)), items)
        places = ", ".join(dict.fromkeys(item.place for item in found[:_PLACES_SHOWN]))
        what = f"the norm of the gradients is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        latest = None if self.checkpoints is None else self.checkpoints.latest()
        kept = "there is no checkpoint" if latest is None else f"the last checkpoint is {latest}"
        ways = "lower the learning rate, or look at these data"
        raise TrainingError(f"{what} in step {self.step + 1} ({places}): {ways}; {kept}")

    def _tensors(self) -> dict[str, Tensor]:
        """Return the trained parameters and the state of the optimizer."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._trained.items():
            state = self._optimizer.state[parameter]
            if not state:  # before the first step
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
            tensors[name] = parameter.detach()
            tensors |= {f"{name}:{key}": value for key, value in state.items()}
        return tensors

    def _save(self) -> Path | None:
        if self.checkpoints is None:
            return None
        state = {"step": self.step, "history": self.history.as_json(), **self._identity}
        return self.checkpoints.save(self.step, self._tensors(), state)

    def _find_start(self, resume: bool) -> Path | None:
        """Return the checkpoint to start from, or None."""
        latest = None if self.checkpoints is None else self.checkpoints.latest()
        if self.checkpoints is None or latest is None:
            return None
        folder = self.checkpoints.folder
        if not resume:
            raise TrainingError(
                f"{folder} has checkpoints of an earlier run: resume it, or remove the folder"
            )
        what = difference(self.checkpoints.state(latest), self._identity)
        if what is not None:
            ways = f"resume it with the same, or remove {folder}"
            raise TrainingError(f"{latest} is of a run with other {what}: {ways}")
        return latest

    def _load(self, checkpoint: Path) -> None:
        assert self.checkpoints is not None
        self.checkpoints.load(checkpoint, self._tensors())
        state = self.checkpoints.state(checkpoint)
        self.step, self.history = state["step"], History.from_json(state["history"])


def can_pack(model: Any) -> bool:
    """Return whether samples may share a row of a model: every layer must support a mask for each query."""
    base = model.base_model
    return hasattr(base, "make_masks") and not base.is_recurrent
