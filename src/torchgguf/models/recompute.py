"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): layers run again in the backward pass.

Only their inputs are kept in between, so memory for activations grows with the size of one layer, at the
price of about a third more time for a training step.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchgguf.nn import Cache

_OPTIONS = {  # `checkpoint` hands what it does not know to the layer, so it is known here
    name
    for name, parameter in inspect.signature(checkpoint).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} | {"preserve_rng_state"}


class GradientCheckpointing(nn.Module):
    """Adds gradient checkpointing to a model that calls its layers by `run_layer`."""

    _checkpoint: Callable[..., Any] | None = None

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
                module._checkpoint = function

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are run again in the backward pass."""
        return self._checkpoint is not None

    def run_layer(self, layer: nn.Module, *args: Any) -> Any:
        """Return `layer(*args)`; when checkpointing, while training, without the cache among `args`.

        A layer that is run again would add its keys to the cache a second time.

        Raises:
            ValueError: that cache is not a new one: positions and masks have counted on what it holds.
        """
        if self._checkpoint is None or not (self.training and torch.is_grad_enabled()):
            return layer(*args)
        return self._checkpoint(layer, *(_without_cache(arg) for arg in args))


def _without_cache(arg: Any) -> Any:
    if not isinstance(arg, Cache):
        return arg
    if arg.get_seq_length() > 0:
        raise ValueError(
            "gradient checkpointing is unsupported with a cache that holds positions: leave the cache out"
        )
    # Python shows a warning of one place once.
    warnings.warn("no cache is made while gradient checkpointing: set use_cache=False", stacklevel=1)
    return None
