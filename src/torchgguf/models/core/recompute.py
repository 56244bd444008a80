"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): layers run again in the backward pass.

Only their inputs are kept in between, so memory for activations grows with the size of one layer, at the
price of about a third more time for a training step.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

_OPTIONS = {  # `checkpoint` hands what it does not know to the layer, so it is known here
    name
    for name, parameter in inspect.signature(checkpoint).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} | {"preserve_rng_state"}


class GradientCheckpointing(nn.Module):
    """Adds gradient checkpointing to a model that calls layers by `checkpoint_layer` if it is not None."""

    checkpoint_layer: Callable[..., Any] | None = None

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Keep only what goes into the layers while training, and compute the rest again.

        Args:
            gradient_checkpointing_kwargs: options of `torch.utils.checkpoint.checkpoint`; `use_reentrant`
                is False unless given.

        Raises:
            ValueError: there is no such option; the message lists those there are.
        """
        options = {"use_reentrant": False} | (gradient_checkpointing_kwargs or {})
        if unknown := options.keys() - _OPTIONS:
            raise ValueError(
                f"gradient checkpointing has no option {sorted(unknown)[0]!r}; "
                f"these are: {', '.join(sorted(_OPTIONS))}"
            )
        self._set_checkpoint(partial(checkpoint, **options))

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self._set_checkpoint(None)

    def _set_checkpoint(self, function: Callable[..., Any] | None) -> None:
        for module in self.modules():
            if isinstance(module, GradientCheckpointing):
                module.checkpoint_layer = function

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are run again in the backward pass."""
        return self.checkpoint_layer is not None
