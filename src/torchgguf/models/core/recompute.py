"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): run layers again in the backward pass.

Only the inputs of layers stay in memory, so activations need the memory of one layer. A training step takes
about a third more time.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

_OPTIONS = {  # `checkpoint` passes unknown options to the layer, so they are checked here
    name
    for name, parameter in inspect.signature(checkpoint).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
} | {"preserve_rng_state"}


class GradientCheckpointing(nn.Module):
    """Adds gradient checkpointing to a model that calls layers through `checkpoint_layer` if it is set.

    transformers calls it activation checkpointing since version 5; both names do the same.
    """

    checkpoint_layer: Callable[..., Any] | None = None
    checkpoint_every: int = 1

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Keep only the inputs of layers in training, and compute the rest again.

        Args:
            gradient_checkpointing_kwargs: options of `torch.utils.checkpoint.checkpoint`; `use_reentrant`
                is False unless given.
            every_n_layers: 2 does it for every second layer only, and so on.
            offload: keep the inputs of layers in the memory of the CPU.

        Raises:
            ValueError: an option is unknown; the message lists the known ones. Or `every_n_layers` is not a
                positive number.
        """
        options = {"use_reentrant": False} | (gradient_checkpointing_kwargs or {})
        if unknown := options.keys() - _OPTIONS:
            raise ValueError(
                f"gradient checkpointing has no option {sorted(unknown)[0]!r}; "
                f"these are: {', '.join(sorted(_OPTIONS))}"
            )
        if type(every_n_layers) is not int or every_n_layers < 1:
            raise ValueError(f"every_n_layers must be at least 1, got {every_n_layers!r}")
        self._set_checkpoint(partial(_run_again, offload=offload, **options), every_n_layers)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Do as `gradient_checkpointing_enable`, with its arguments."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations."""
        self._set_checkpoint(None)

    def activation_checkpointing_disable(self) -> None:
        """Keep all activations."""
        self.gradient_checkpointing_disable()

    def _set_checkpoint(self, function: Callable[..., Any] | None, every: int = 1) -> None:
        for module in self.modules():
            if isinstance(module, GradientCheckpointing):
                module.checkpoint_layer, module.checkpoint_every = function, every

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers run again in the backward pass."""
        return self.checkpoint_layer is not None

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether layers run again in the backward pass."""
        return self.is_gradient_checkpointing


def _run_again(run: Callable[..., Any], x: Tensor, *carried: Tensor, offload: bool, **options: Any) -> Any:
    """Call a function by `checkpoint`."""
    if options["use_reentrant"] and not x.requires_grad:
        # Behind a frozen embedding it would compute no gradients, not even those of layers that are trained.
        x = x.detach().requires_grad_()
    if not offload:
        return checkpoint(run, x, *carried, **options)
    with save_on_cpu(pin_memory=torch.accelerator.is_available()):
        return checkpoint(run, x, *carried, **options)
