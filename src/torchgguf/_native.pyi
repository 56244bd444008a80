"""The native part, built from csrc/. Every function checks the tensors that it reads and writes."""

from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import Buffer

def isas() -> list[str]:
    """List the instruction sets that were compiled in and that this CPU supports, the best one last."""

def isa() -> str:
    """Return the name of the instruction set in use."""

def set_isa(name: str) -> None:
    """Use another one of `isas()`, in all threads. TORCHGGUF_ISA chooses one at load."""

def has_native_bf16() -> bool:
    """Return whether the CPU multiplies BF16 in hardware."""

def skip_strings(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[int, int]:
    """Return how many of `count` strings from `offset` on lie inside the buffer, and where they end."""

def decode_strings(buffer: Buffer, offset: int, count: int, big_endian: bool) -> tuple[list[str], int]:
    """Decode `count` strings from `offset` on; return them, and where the next one begins."""

def layouts() -> dict[str, dict[str, Any]]:
    """Return the table of block layouts; torchgguf.quants.layouts explains it."""

def set_grid(type: int, grid: bytes) -> None:
    """Pass on the grid of an I-quant, signed bytes, before its first use."""

def linear(
    type: int,
    weight: torch.Tensor,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    threads: int,
) -> None:
    """
    Compute out = x W^T + bias.

    weight is uint8 (out_features, bytes), x float32 (..., in_features), bias float32 (out_features)
    or None, out float32 (..., out_features).
    """

def dequantize(type: int, packed: torch.Tensor, out: torch.Tensor, threads: int) -> None:
    """Decode packed, uint8 (..., bytes), into out, float32 or bfloat16 (..., n)."""

def embedding(type: int, table: torch.Tensor, indices: torch.Tensor, out: torch.Tensor, threads: int) -> None:
    """
    Decode the rows that indices, int64 (...), names of table, uint8 (rows, bytes).

    out is float32 or bfloat16 (..., n).
    """

def quantize(
    type: int, weights: torch.Tensor, importance: torch.Tensor | None, out: torch.Tensor, threads: int
) -> None:
    """
    Pack weights, float32 (..., n) and finite, into out, uint8 (..., bytes).

    importance, float32 (n) and above zero, or None, weighs the errors of each column.
    """

def delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
    out: torch.Tensor,
    new_state: torch.Tensor,
    corrected: bool,
    threads: int,
) -> None:
    """
    Read a text by S <- exp(decay) S; S <- S + beta k (v - k S); out = q S.

    Without corrected, k S is not subtracted. All are float32: query, key (B, T, K, N), value, out
    (B, T, H, V), decay (B, T, H) or (B, T, H, N), beta (B, T, H), state, new_state (B, H, N, V).
    """

def delta_rule_backward(
    grad_out: torch.Tensor,
    grad_state: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
    by_query: torch.Tensor,
    by_key: torch.Tensor,
    by_value: torch.Tensor,
    by_decay: torch.Tensor,
    by_beta: torch.Tensor,
    by_state: torch.Tensor,
    corrected: bool,
    threads: int,
) -> None:
    """
    Compute the gradients of delta_rule from those of its outputs.

    by_query and by_key, (B, T, K, slices, N), are sums over slices of the heads that share keys; the others
    have the shapes of what they are the gradients of.
    """

def state_space_step(
    x: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    out: torch.Tensor,
    new_state: torch.Tensor,
    threads: int,
) -> None:
    """
    Read few positions by S <- exp(step a) S + step x b; out = S c.

    All are float32: x, out (B, T, H, P), step (B, T, H), a (H), b, c (B, T, G, N), state, new_state
    (B, H, P, N).
    """

def selective_scan(
    x: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    out: torch.Tensor,
    new_state: torch.Tensor,
    threads: int,
) -> None:
    """
    Read a text by s <- exp(step a) s + step x b; out = c s.

    All are float32: x, step, out (B, T, C), a (C, N), b, c (B, T, N), state, new_state (B, C, N).
    """

def selective_scan_backward(
    grad_out: torch.Tensor,
    grad_state: torch.Tensor,
    x: torch.Tensor,
    step: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    state: torch.Tensor,
    by_x: torch.Tensor,
    by_step: torch.Tensor,
    by_a: torch.Tensor,
    by_b: torch.Tensor,
    by_c: torch.Tensor,
    by_state: torch.Tensor,
    threads: int,
) -> None:
    """
    Compute the gradients of selective_scan from those of its outputs.

    by_a, (B, C, N), is of each text; by_b and by_c, (B, slices, T, N), are sums over slices of channels; the
    others have the shapes of what they are the gradients of.
    """

def causal_convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor, threads: int
) -> None:
    """
    Compute out[t] = bias + the sum over k of weight[k] x[t + k], in each channel.

    All are float32: x (B, C, K - 1 + T), weight (C, K), bias (C) or None, out (B, C, T).
    """

class Program:
    """Instructions on tensors that stay where they are, computed without Python."""

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def add(
        self,
        op: str,
        tensors: Sequence[tuple[int, int, Sequence[int], Sequence[int]]],
        ints: Sequence[int],
        floats: Sequence[float],
    ) -> None:
        """
        Append an instruction.

        Each tensor is its address (0: absent), its dtype (0 float32, 1 bfloat16, 2 float16, 3 int64, 4 int32,
        5 uint8, 6 bool), its sizes and its strides; outputs are first. ValueError: it is not supported.
        """

    def run(self, threads: int) -> None:
        """Compute all instructions. RuntimeError: an index was outside."""

    def profile(self, threads: int) -> list[tuple[str, int]]:
        """Compute all instructions; return the name of each and the nanoseconds it took."""
