"""`Builder`: writes a `Program` down while a step runs, and knows which tensor lies in which memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from torchgguf.kernels.plan.program import (
    ABSENT,
    DTYPES,
    INTEGER,
    ITEM_SIZES,
    Instruction,
    Memory,
    Operand,
    PlanError,
    Program,
)

Argument = Tensor | Operand | None


class Builder:
    """Writes a program down, operator by operator.

    A tensor that is met for the first time and that no operator made was there before the step: a parameter,
    a state, an input. What operators make are temporaries; torch may free them, and use their memory for
    others, while the program is written.
    """

    def __init__(self) -> None:
        self.program = Program()
        self._by_address: dict[int, int] = {}
        # What `index_select` along the first dimension made: from which tensor, by which index.
        self.selected: dict[int, tuple[Operand, Operand]] = {}

    def operand(self, tensor: Tensor) -> Operand:
        """Return a tensor that is there as an operand.

        Raises:
            PlanError: the executor does not know its dtype.
        """
        number = DTYPES.get(tensor.dtype)
        if number is None:
            raise PlanError(f"a tensor of {tensor.dtype}")
        offset, address = _place(tensor)
        memory = self._by_address.get(address)
        if memory is None:
            memory = self._new(Memory(tensor.untyped_storage().nbytes(), tensor=tensor), address)
        return Operand(memory, offset, number, tuple(tensor.shape), tensor.stride())

    def made(self, tensor: Tensor) -> Operand:
        """Return a tensor that an operator has just made as an operand."""
        if tensor.numel():
            self._new(Memory(tensor.untyped_storage().nbytes()), _place(tensor)[1])
        return self.operand(tensor)

    def temporary(self, sizes: Sequence[int], dtype: torch.dtype) -> Operand:
        """Return a contiguous temporary that no tensor stands for."""
        number = DTYPES[dtype]
        memory = self._new(Memory(prod(sizes) * ITEM_SIZES[number]))
        return Operand(memory, 0, number, tuple(sizes), contiguous_strides(sizes))

    def constant(self, tensor: Tensor) -> None:
        """Take the values of a new tensor as the same in all steps, as long as nothing writes into it."""
        self._new(Memory(tensor.untyped_storage().nbytes(), constant=tensor), _place(tensor)[1])

    def _new(self, memory: Memory, address: int | None = None) -> int:
        number = len(self.program.memories)
        self.program.memories.append(memory)
        if address is not None:
            self._by_address[address] = number
        return number

    def alias(self, one: Tensor, other: Tensor) -> bool:
        """Return whether two tensors lie in the same memory."""
        return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()

    def emit(
        self,
        op: str,
        outputs: Sequence[Tensor | Operand],
        inputs: Sequence[Argument],
        ints: Sequence[int] = (),
        floats: Sequence[float] = (),
    ) -> None:
        """Write an instruction down.

        Args:
            op: its name.
            outputs: tensors that the operator has just made, or operands that are written in place.
            inputs: tensors, operands, or None where there is none.
            ints: its integers.
            floats: its floats.
        """
        read = [self._read(each) for each in inputs]
        written = [self._write(each) for each in outputs]
        if all(each.memory < 0 or self._is_constant(each) for each in read):
            for each, tensor in zip(written, outputs, strict=True):
                if isinstance(tensor, Tensor) and each.memory >= 0:
                    self.program.memories[each.memory].constant = tensor
        self.program.instructions.append(
            Instruction(op, len(written), (*written, *read), tuple(ints), tuple(floats))
        )

    def _write(self, output: Tensor | Operand) -> Operand:
        if isinstance(output, Tensor):
            return self.made(output)
        self.program.memories[output.memory].mutated = True
        return output

    def _is_constant(self, operand: Operand) -> bool:
        memory = self.program.memories[operand.memory]
        return memory.constant is not None and not memory.mutated

    def _read(self, value: Argument) -> Operand:
        if value is None:
            return ABSENT
        return value if isinstance(value, Operand) else self.operand(value)

    def number(self, value: float) -> Operand:
        """Return what stands for a Python number, whose value is among the floats if it is exact there."""
        if isinstance(value, int) and int(float(value)) != value:
            tensor = torch.tensor(value)
            self.constant(tensor)
            return self.operand(tensor)
        return INTEGER if isinstance(value, int) else ABSENT

    def contiguous(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Operand:
        """Return a tensor as it is or, if it is not contiguous or of another dtype, a copy."""
        if tensor.is_contiguous() and (dtype is None or tensor.dtype is dtype):
            return self.operand(tensor)
        copy = self.temporary(tensor.shape, dtype or tensor.dtype)
        self.emit("copy", [copy], [tensor])
        return copy

    def finish(self, result: Tensor) -> Program:
        """Return the program of a step with this result, without what nobody needs."""
        program = self.program
        program.output = self.operand(result)
        memories = program.memories
        for memory in memories:
            if memory.mutated:
                memory.constant = None
        needed = {i for i, memory in enumerate(memories) if memory.tensor is not None}
        needed.add(program.output.memory)
        kept = []
        for each in reversed(program.instructions):
            if any(x.memory in needed and memories[x.memory].constant is None for x in each.written):
                needed.update(x.memory for x in each.read)
                kept.append(each)
        program.instructions = kept[::-1]
        return program


def _place(tensor: Tensor) -> tuple[int, int]:
    """Return where a tensor begins in its memory, in bytes, and the address of that memory."""
    offset = int(tensor.storage_offset()) * tensor.itemsize
    return offset, tensor.data_ptr() - offset


def contiguous_strides(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, in elements."""
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def expanded(operand: Operand, sizes: Sequence[int]) -> Operand:
    """Return an operand as `Tensor.expand` would."""
    missing = len(sizes) - len(operand.sizes)
    strides = (0,) * missing + tuple(
        0 if old == 1 and new != 1 else stride
        for old, new, stride in zip(operand.sizes, sizes[missing:], operand.strides, strict=True)
    )
    return operand._replace(sizes=tuple(sizes), strides=strides)


def with_dimension(operand: Operand, dim: int) -> Operand:
    """Return an operand as `Tensor.unsqueeze` would, for a dimension that is not negative."""
    sizes, strides = list(operand.sizes), list(operand.strides)
    sizes.insert(dim, 1)
    strides.insert(dim, 0)
    return operand._replace(sizes=tuple(sizes), strides=tuple(strides))


def item(operand: Operand, dim: int, index: int, length: int | None = None) -> Operand:
    """Return an operand as `select` would or, with a length, as `narrow` would."""
    offset = operand.offset + index * operand.strides[dim] * ITEM_SIZES[operand.dtype]
    sizes, strides = list(operand.sizes), list(operand.strides)
    if length is None:
        del sizes[dim], strides[dim]
    else:
        sizes[dim] = length
    return operand._replace(offset=offset, sizes=tuple(sizes), strides=tuple(strides))
