"""`finetune`: train a model on data, in one call."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from torchgguf.tokenization import Tokenizer
from torchgguf.training.data import DataSource, TrainingData, load_training_data
from torchgguf.training.loop.history import History
from torchgguf.training.loop.plots import draw_losses
from torchgguf.training.loop.processes import Parallelism
from torchgguf.training.loop.run import Progress, TrainingRun
from torchgguf.training.loop.settings import TrainingSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What a training has done.

    Attributes:
        history: the losses.
        finished: whether all steps are done; False after Ctrl-C.
        data: what the model was trained on, with what is wrong with the rest.
    """

    history: History
    finished: bool
    data: TrainingData

    def plot(self, path: str | PathLike[str], title: str = "") -> None:
        """Draw the losses as a PNG, by matplotlib."""
        draw_losses(self.history, Path(path), title)


def finetune(
    model: nn.Module,
    tokenizer: Tokenizer,
    data: DataSource | TrainingData,
    *,
    held_out: DataSource | float = 0.0,
    max_length: int = 2048,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    parallelism: Parallelism | str = Parallelism.replicate,
    on_step: Callable[[Progress], object] | None = None,
    settings: TrainingSettings | None = None,
    **options: Any,
) -> TrainingResult:
    """Train those parameters of a model that have gradients, in place: adapters, or all.

    Add adapters before (`add_lora(model)`), or unpack the model (`model.dequantize()`). Under torchrun, the
    processes train together. A warning names what is wrong with records before the first step.

    Args:
        model: with a language head.
        tokenizer: the model's, with its chat template.
        data: as `load_training_data` reads or returns them.
        held_out: data to measure the loss on; or the share of `data` to hold out for it.
        max_length: the largest number of tokens of a sample.
        folder: for checkpoints; by default there are none.
        resume: whether to continue from the newest checkpoint in the folder, if there is one.
        parallelism: how several processes hold the model: `"replicate"` or `"shard"`.
        on_step: is called after each step.
        settings: how to train.
        options: fields of `TrainingSettings`, by name, which override `settings`.

    Returns:
        The losses, and whether the training was finished.

    Raises:
        TrainingError: there is nothing to train, the loss is not finite, or the folder has checkpoints of
            another run.
        ValueError: a setting is invalid, or no record is usable.
        OSError: a file is missing, or a checkpoint could not be written.
    """
    chosen = replace(settings or TrainingSettings(), **options)
    if not isinstance(data, TrainingData):
        data = load_training_data(data, tokenizer, max_length=max_length, held_out=held_out, seed=chosen.seed)
        for line in data.problems.lines():
            _logger.warning("training data: %s", line)
    place = None if folder is None else Path(folder)
    run = TrainingRun(model, data, chosen, place, resume=resume, parallelism=parallelism)
    finished = run.train(on_step)
    return TrainingResult(run.history, finished, data)
