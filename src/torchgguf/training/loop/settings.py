"""`TrainingSettings`: how a model is trained."""

from dataclasses import dataclass, fields
from typing import Any

from torchgguf.training.loop.schedule import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained.

    Results do not depend on `packing`, `tokens_per_pass` or the number of processes, but for rounding.

    Attributes:
        epochs: how often each sample is trained on.
        max_steps: the number of steps, which overrides `epochs`.
        batch_size: the samples of a step, in all passes and processes together.
        tokens_per_pass: the largest number of tokens that go through the model at a time, unless one sample
            is longer: it bounds the memory. The gradients of a step are accumulated over its passes.
        packing: whether short samples share a row, without attention to each other. Models with recurrent
            layers do not support it; their samples are padded.
        learning_rate: the largest one, after the warm-up.
        schedule: how the learning rate falls after the warm-up: a name in `SCHEDULES`.
        warmup: the share of the steps in which the learning rate rises from 0.
        weight_decay: of AdamW, for matrices.
        max_grad_norm: gradients of a larger norm are scaled down to it; 0: never.
        beta: how strongly pairs keep the model near what it was (Rafailov et al. 2023, arXiv 2305.18290).
        gradient_checkpointing: compute layers again in the backward pass, to need less memory.
        seed: of the order of samples and of dropout.
        eval_every: the steps between two measurements on held-out data; None: a tenth of all.
        save_every: the steps between two checkpoints; None: a tenth of all.
        keep: the number of checkpoints that are kept.
    """

    epochs: int = 3
    max_steps: int | None = None
    batch_size: int = 16
    tokens_per_pass: int = 2048
    packing: bool = True
    learning_rate: float = 2e-4
    schedule: str = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    beta: float = 0.1
    gradient_checkpointing: bool = False
    seed: int = 0
    eval_every: int | None = None
    save_every: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one is out of range; the message names it.
        """
        for name in (
            "epochs",
            "max_steps",
            "batch_size",
            "tokens_per_pass",
            "eval_every",
            "save_every",
            "keep",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "beta", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be from 0 to 1, got {self.warmup}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")

    def of_results(self) -> dict[str, Any]:
        """Return the settings that the result depends on: a run is resumed with the same ones."""
        others = {"tokens_per_pass", "packing", "gradient_checkpointing", "eval_every", "save_every", "keep"}
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in others}
