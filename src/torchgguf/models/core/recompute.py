"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): run layers again in the backward pass.

Only the inputs of layers stay in memory, so activations need the memory of one layer. A training step takes
about a third more time.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

_OPTIONS = {  # `checkpoint` passes unknown options to the layer, so they are checked here
    name
    for name, parameter in inspect.signature(checkpoint).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} | {"preserve_rng_state"}


class GradientCheckpointing(nn.Module):
    """Adds gradient checkpointing to a model that calls layers through `checkpoint_layer` if it is set."""

    checkpoint_layer: Callable[..., Any] | None = None

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Keep only the inputs of layers in training, and compute the rest again.

        Args:
            gradient_checkpointing_kwargs: options of `torch.utils.checkpoint.checkpoint`; `use_reentrant`
                is False unless given.

        Raises:
            ValueError: an option is unknown; the message lists the known ones.
        """
        options = {"use_reentrant": False} | (gradient_checkpointing_kwargs or {})
        if unknown := options.keys() - _OPTIONS:
            raise ValueError(
                f"gradient checkpointing has no option {sorted(unknown)[0]!r}; "
                f"these are: {', '.join(sorted(_OPTIONS))}"
            )
        self._set_checkpoint(partial(checkpoint, **options))

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations."""
        self._set_checkpoint(None)

    def _set_checkpoint(self, function: Callable[..., Any] | None) -> None:
        for module in self.modules():
            if isinstance(module, GradientCheckpointing):
                module.checkpoint_layer = function

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers run again in the backward pass."""
        return self.checkpoint_layer is not None
