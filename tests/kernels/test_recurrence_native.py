"""The native border of recurrences: whatever Python passes, no byte outside of the tensors is touched."""

from contextlib import ExitStack

import pytest
import torch
from torch import Tensor

from tests.guard_page import guarded, needs_guard_pages

_native = pytest.importorskip("torchgguf._native")

B, T, K, H, N, V, C = 2, 14, 2, 4, 5, 6, 19
SHAPES = {
    "delta_rule": {
        "query": (B, T, K, N),
        "key": (B, T, K, N),
        "value": (B, T, H, V),
        "decay": (B, T, H),
        "beta": (B, T, H),
        "state": (B, H, N, V),
        "out": (B, T, H, V),
        "new_state": (B, H, N, V),
    },
    "state_space_step": {
        "x": (B, T, H, V),
        "step": (B, T, H),
        "a": (H,),
        "b": (B, T, K, N),
        "c": (B, T, K, N),
        "state": (B, H, V, N),
        "out": (B, T, H, V),
        "new_state": (B, H, V, N),
    },
    "selective_scan": {
        "x": (B, T, C),
        "step": (B, T, C),
        "a": (C, N),
        "b": (B, T, N),
        "c": (B, T, N),
        "state": (B, C, N),
        "out": (B, T, C),
        "new_state": (B, C, N),
    },
    "delta_rule_backward": {
        "grad_out": (B, T, H, V),
        "grad_state": (B, H, N, V),
        "query": (B, T, K, N),
        "key": (B, T, K, N),
        "value": (B, T, H, V),
        "decay": (B, T, H, N),
        "beta": (B, T, H),
        "state": (B, H, N, V),
        "by_query": (B, T, K, 1, N),
        "by_key": (B, T, K, 1, N),
        "by_value": (B, T, H, V),
        "by_decay": (B, T, H, N),
        "by_beta": (B, T, H),
        "by_state": (B, H, N, V),
    },
    "selective_scan_backward": {
        "grad_out": (B, T, C),
        "grad_state": (B, C, N),
        "x": (B, T, C),
        "step": (B, T, C),
        "a": (C, N),
        "b": (B, T, N),
        "c": (B, T, N),
        "state": (B, C, N),
        "by_x": (B, T, C),
        "by_step": (B, T, C),
        "by_a": (B, C, N),
        "by_b": (B, 2, T, N),
        "by_c": (B, 2, T, N),
        "by_state": (B, C, N),
    },
    "causal_convolution": {"x": (B, C, T + 3), "weight": (C, 4), "bias": (C,), "out": (B, C, T)},
}
TENSORS = [(function, name) for function, shapes in SHAPES.items() for name in shapes]
each_tensor = pytest.mark.parametrize(("function", "name"), TENSORS)


def arguments(function: str) -> dict[str, Tensor]:
    """Right ones, by name."""
    torch.manual_seed(0)
    return {name: -torch.rand(shape) for name, shape in SHAPES[function].items()}


def call(function: str, tensors: dict[str, Tensor]) -> None:
    corrected = {"corrected": True} if function.startswith("delta_rule") else {}
    getattr(_native, function)(**tensors, **corrected, threads=2)


def refused(function: str, **wrong: Tensor) -> str:
    with pytest.raises((ValueError, TypeError)) as error:
        call(function, arguments(function) | wrong)
    return str(error.value)


@needs_guard_pages
@pytest.mark.parametrize("function", SHAPES)
def test_no_byte_behind_a_tensor_is_touched(function, isa):
    right = arguments(function)
    call(function, right)
    with ExitStack() as stack:
        guards = {name: stack.enter_context(guarded(tensor)) for name, tensor in right.items()}
        filled = [name for name in guards if name in ("out", "new_state") or name.startswith("by_")]
        for name in filled:
            guards[name].fill_(torch.nan)
        call(function, guards)
        assert all(torch.equal(guards[name], right[name]) for name in filled)


@each_tensor
def test_wrong_tensors_are_refused(function, name):
    right = arguments(function)[name]
    for dtype in (torch.float64, torch.bfloat16, torch.int8):
        assert refused(function, **{name: right.to(dtype)}) == f"{name} must be float32"
    gaps = right.repeat_interleave(2, -1)[..., ::2]
    assert refused(function, **{name: gaps}) == f"{name} must be contiguous"
    assert "must" in refused(function, **{name: right[None]})
    for dimension in range(right.dim()):
        larger = torch.cat([right, right], dimension)
        assert "must be" in refused(function, **{name: larger})
        assert "must be" in refused(function, **{name: larger.narrow(dimension, 0, 0).contiguous()})


def test_heads_are_whole_groups():
    odd = {"key": torch.rand(B, T, 3, N), "query": torch.rand(B, T, 3, N)}
    assert refused("delta_rule", **odd) == "heads of value must be a multiple of 3, got 4"
    odd = {"b": torch.rand(B, T, 3, N), "c": torch.rand(B, T, 3, N)}
    assert refused("state_space_step", **odd) == "heads of x must be a multiple of 3, got 4"
    three = torch.rand(B, T, K, 3, N)
    odd = {"by_query": three, "by_key": three}
    assert refused("delta_rule_backward", **odd) == "heads of value must be a multiple of 6, got 4"
