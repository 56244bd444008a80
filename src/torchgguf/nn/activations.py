"""Activation functions by their names in configs."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def _relu2(x: Tensor) -> Tensor:
    """Square what is above 0 (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()


def _quick_gelu(x: Tensor) -> Tensor:
    """Approximate GELU by a sigmoid."""
    return x * torch.sigmoid(1.702 * x)


def _identity(x: Tensor) -> Tensor:
    """Return the input."""
    return x


_gelu_tanh = partial(F.gelu, approximate="tanh")  # Hendrycks and Gimpel 2016, arXiv 1606.08415

# Layers hold these, and models are pickled with their layers: each must be found by its module and name.
ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "relu2": _relu2,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "mish": F.mish,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "linear": _identity,
}


def find_activation(field: str, name: str) -> Activation:
    """Return the activation that a config's field names.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"{field} {name!r} is not supported; these are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
