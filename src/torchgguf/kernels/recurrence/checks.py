"""What the recurrences require of the shapes of their arguments; the error names the wrong one.

Shape letters: as in `torchgguf.nn.recurrence`.
"""

import torch
from torch import Tensor


def check_shapes(**arguments: tuple[Tensor, tuple[int, ...]]) -> None:
    """Compare tensors with the shapes that they must have.

    Raises:
        ValueError: the shape of one differs.
    """
    for name, (tensor, shape) in arguments.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must have the shape {tuple(shape)}, got {tuple(tensor.shape)}")


def _check_ranks(**arguments: tuple[Tensor, int]) -> None:
    for name, (tensor, rank) in arguments.items():
        if tensor.dim() != rank:
            raise ValueError(f"{name} must have {rank} dimensions, got the shape {tuple(tensor.shape)}")


def _check_multiple(name: str, count: int, of: int) -> None:
    if of == 0 or count % of:
        raise ValueError(f"{name} must be a multiple of {of}, got {count}")


def _check_state(state: Tensor) -> None:
    if state.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"state must be float32 or float64, got {state.dtype}")


def check_gated_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, beta: Tensor, state: Tensor
) -> None:
    """Check the arguments of `gated_delta_rule`.

    Raises:
        ValueError: one has a wrong shape, or the state has a wrong dtype.
    """
    _check_ranks(key=(key, 4), value=(value, 4))
    batch, length, heads, size = value.shape
    keys, channels = key.shape[2:]
    _check_multiple("the number of heads of value", heads, keys)
    per_head = (batch, length, heads)
    check_shapes(
        query=(query, (batch, length, keys, channels)),
        key=(key, (batch, length, keys, channels)),
        decay=(decay, (*per_head, channels) if decay.dim() == 4 else per_head),
        beta=(beta, per_head),
        state=(state, (batch, heads, channels, size)),
    )
    _check_state(state)


def check_selective_scan(
    x: Tensor, step_size: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> None:
    """Check the arguments of `selective_scan`.

    Raises:
        ValueError: one has a wrong shape, or the state has a wrong dtype.
    """
    _check_ranks(x=(x, 3), a=(a, 2))
    batch, length, channels = x.shape
    size = a.shape[1]
    check_shapes(
        step_size=(step_size, (batch, length, channels)),
        a=(a, (channels, size)),
        b=(b, (batch, length, size)),
        c=(c, (batch, length, size)),
        state=(state, (batch, channels, size)),
    )
    _check_state(state)


def check_state_space_scan(
    x: Tensor, step_size: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor
) -> None:
    """Check the arguments of `state_space_scan`.

    Raises:
        ValueError: one has a wrong shape, or the state has a wrong dtype.
    """
    _check_ranks(x=(x, 4), b=(b, 4))
    batch, length, heads, width = x.shape
    groups, size = b.shape[2:]
    _check_multiple("the number of heads", heads, groups)
    check_shapes(
        step_size=(step_size, (batch, length, heads)),
        a=(a, (heads,)),
        b=(b, (batch, length, groups, size)),
        c=(c, (batch, length, groups, size)),
        state=(state, (batch, heads, width, size)),
    )
    _check_state(state)


def check_causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Check the arguments of `causal_convolution`.

    Raises:
        ValueError: one has a wrong shape, or x is shorter than what must be before the first new position.
    """
    _check_ranks(x=(x, 3), weight=(weight, 2))
    channels, size = weight.shape
    if x.shape[1] != channels:
        raise ValueError(f"x must have {channels} channels, got the shape {tuple(x.shape)}")
    if size == 0 or x.shape[2] < size - 1:
        raise ValueError(f"x must have at least {size - 1} positions, got the shape {tuple(x.shape)}")
    if bias is not None:
        check_shapes(bias=(bias, (channels,)))
