"""Vectors of texts: one of the states of a text's tokens, or their mean.

Shape letters: B batch, T positions, N size of a state.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1)


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.int().argmax(1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return _at(states, mask.shape[1] - 1 - mask.int().flip(1).argmax(1))


def _at(states: Tensor, positions: Tensor) -> Tensor:
    """Return the states at these positions `(B,)`."""
    return states[positions.new_tensor(range(len(states))), positions]


# How one vector is made from the states of all tokens.
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": _mean, "cls": _first, "last": _last}


def pool_states(states: Tensor, attention_mask: Tensor, pooling: str, *, normalize: bool = False) -> Tensor:
    """Return a vector for each text.

    Args:
        states: of all tokens, `(B, T, N)`.
        attention_mask: `(B, T)`, zero at padding on either side; a row contains at least one token.
        pooling: `"mean"` of all tokens, or the state of the first (`"cls"`) or of the `"last"` token.
        normalize: whether each vector is divided by its length.

    Returns:
        Float32 `(B, N)`.

    Raises:
        ValueError: `pooling` is unknown.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r} is unsupported; these are: {', '.join(POOLINGS)}")
    pooled = POOLINGS[pooling](states.float(), attention_mask.to(states.device) != 0)
    return F.normalize(pooled, dim=-1) if normalize else pooled
