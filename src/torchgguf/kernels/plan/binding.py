"""Bind a program to addresses, and run it: by the native executor or, in tests, by torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from torchgguf._extension import native
from torchgguf.kernels.plan.program import DTYPES, Memory, Operand, PlanError, Program
from torchgguf.kernels.plan.reference import run_instruction

_ALIGNMENT = 64  # bytes: a line of the cache
_TORCH_DTYPES = {number: dtype for dtype, number in DTYPES.items()}


class Executor(Protocol):
    """What runs a bound program."""

    def run(self) -> None:
        """Run all instructions, with as many threads as torch uses."""


class BoundProgram:
    """The memories of a program, each with a place.

    Args:
        program: the program.
        places: the tensors that its names stand for.
    """

    def __init__(self, program: Program, places: Mapping[Any, Tensor]) -> None:
        self.program = program
        self._bytes: dict[int, Tensor] = {}
        used = program.used() | {program.output.memory}
        for number in used:
            self._bytes[number] = _bytes_of(places.get(program.names.get(number)), program.memories[number])

    def tensor(self, operand: Operand) -> Tensor | None:
        """Return an operand as a tensor, or None if it is absent."""
        if operand.memory < 0:
            return None
        dtype = _TORCH_DTYPES[operand.dtype]
        flat = self._bytes[operand.memory]
        usable = (len(flat) - operand.offset) // dtype.itemsize * dtype.itemsize
        values = flat[operand.offset : operand.offset + usable].view(dtype)
        return values.as_strided(operand.sizes, operand.strides)

    def addresses(self) -> dict[int, int]:
        """Return the address of each memory."""
        return {number: flat.data_ptr() for number, flat in self._bytes.items()}

    @property
    def output(self) -> Tensor:
        """What the program computes: overwritten by each run."""
        found = self.tensor(self.program.output)
        assert found is not None
        return found


def _bytes_of(place: Tensor | None, memory: Memory) -> Tensor:
    tensor = place if place is not None else memory.tensor if memory.tensor is not None else memory.constant
    if tensor is None:
        return torch.empty(-(-memory.size // _ALIGNMENT) * _ALIGNMENT, dtype=torch.uint8)
    flat = torch.empty(0, dtype=torch.uint8)
    return flat.set_(tensor.untyped_storage())


class ReferenceExecutor:
    """Runs a program instruction by instruction, by torch."""

    def __init__(self, bound: BoundProgram) -> None:
        self._calls = [
            (each, [bound.tensor(operand) for operand in each.tensors]) for each in bound.program.instructions
        ]

    def run(self) -> None:
        """Run all instructions."""
        for instruction, tensors in self._calls:
            run_instruction(instruction, tensors)


class NativeExecutor:
    """Runs a program by the native part.

    Raises:
        PlanError: the native part does not know one of the instructions.
    """

    def __init__(self, bound: BoundProgram) -> None:
        self._bound = bound  # keeps the memory
        self._program: Any = native.Program()
        addresses = bound.addresses() | {-1: 0}
        for each in bound.program.instructions:
            tensors = [(addresses[x.memory] + x.offset, *x[2:]) for x in each.tensors]
            try:
                self._program.add(each.op, tensors, list(each.ints), list(each.floats))
            except ValueError as error:
                raise PlanError(f"the instruction {each.op}: {error}") from None

    def run(self) -> None:
        """Run all instructions."""
        self._program.run(torch.get_num_threads())


def has_native_executor() -> bool:
    """Return whether the native part was built, and can run programs."""
    return native is not None and hasattr(native, "Program")
