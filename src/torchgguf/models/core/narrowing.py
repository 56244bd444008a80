"""Narrow weights to a smaller dtype, and notice finite numbers that become infinite."""

import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor

_logger = logging.getLogger(__name__)


def narrow(tensor: Tensor, dtype: torch.dtype, too_large: Callable[[], object]) -> Tensor:
    """Cast a tensor.

    Args:
        tensor: to cast.
        dtype: of the result.
        too_large: is called if a finite number became infinite.
    """
    narrowed = tensor.to(dtype)
    if _is_smaller(dtype, tensor.dtype) and became_infinite(narrowed, lambda: tensor):
        too_large()
    return narrowed


def became_infinite(narrowed: Tensor, exact: Callable[[], Tensor]) -> bool:
    """Return whether a number that was finite is infinite now.

    Args:
        narrowed: the numbers in the smaller dtype.
        exact: returns the same numbers in a larger dtype. It is called only if `narrowed` is not finite.
    """
    if not narrowed.numel() or all(end.isfinite() for end in narrowed.aminmax()):
        return False
    return bool((narrowed.isinf() & exact().to(narrowed.device).isfinite()).any())


def refuse_too_large(name: str, dtype: torch.dtype) -> NoReturn:
    """Raise a ValueError for a tensor with numbers that are too large for a dtype."""
    short = str(dtype).removeprefix("torch.")
    raise ValueError(
        f"tensor {name!r} has finite weights that are too large for {short}, whose largest number is "
        f"{torch.finfo(dtype).max:g}{': choose bfloat16 or float32' if dtype is torch.float16 else ''}"
    )


def warn_of_infinite(names: Sequence[str], dtype: torch.dtype | None) -> None:
    """Log the first of the parameters whose finite weights became infinite, and how many there are."""
    if names:
        _logger.warning(
            "%s has weights that are too large for %s and became infinite (other such tensors: %d): load "
            "with dtype='bfloat16' or 'float32'",
            *(names[0], str(dtype).removeprefix("torch."), len(names) - 1),
        )


def _is_smaller(new: torch.dtype, old: torch.dtype) -> bool:
    """Return whether finite numbers of the old dtype may be infinite in the new one."""
    # bfloat16 and float32 reach about as far.
    return new is not old and (new is torch.float16 or old is torch.float64)
