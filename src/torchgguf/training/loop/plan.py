"""`StepPlan`: which samples each step is trained on, as the seed determines: there is no state to store."""

from collections.abc import Sequence

import torch

from torchgguf.training.data import Item
from torchgguf.training.loop.settings import TrainingSettings


class StepPlan:
    """The order of the samples: shuffled anew in each epoch.

    Args:
        items: to train on.
        settings: the size of a step, the number of epochs or steps, and the seed.

    Attributes:
        steps: the number of all steps.
    """

    def __init__(self, items: Sequence[Item], settings: TrainingSettings) -> None:
        self._items = items
        self._size = settings.batch_size
        self._seed = settings.seed
        self.steps_per_epoch = -(-len(items) // self._size)
        self.steps = settings.max_steps or settings.epochs * self.steps_per_epoch

    def items(self, step: int) -> list[Item]:
        """Return the items of a step; the last step of an epoch may have fewer."""
        epoch, number = divmod(step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(step_seed(self._seed, epoch))
        order = torch.randperm(len(self._items), generator=generator).tolist()
        return [self._items[i] for i in order[number * self._size : (number + 1) * self._size]]

    def is_due(self, step: int, every: int | None) -> bool:
        """Return whether something that happens every so many steps is due after `step` steps.

        Args:
            step: the number of steps done.
            every: the number of steps between; None: a tenth of all.
        """
        return step == self.steps or step % (every or max(1, -(-self.steps // 10))) == 0


def step_seed(seed: int, number: int, process: int = 0) -> int:
    """Return a seed for one epoch or step of one process."""
    return (seed * 1_000_003 + number) * 1009 + process
