"""`Program`: a recorded step as a list of instructions on memories, before it is bound to addresses.

An instruction is a name, its tensors (outputs first, then inputs), integers and floats; `reference` says what
each name means. A tensor is an `Operand`: a place in a `Memory`, and how it lies there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The native part's numbers of dtypes.
DTYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.int64: 3,
    torch.int32: 4,
    torch.uint8: 5,
    torch.bool: 6,
}
ITEM_SIZES = {number: dtype.itemsize for dtype, number in DTYPES.items()}


class PlanError(Exception):
    """A step cannot be recorded; the message says why, in a few words."""


class Operand(NamedTuple):
    """A tensor of an instruction.

    Attributes:
        memory: the number of the memory that it lies in; -1 for a tensor that is absent, or a Python number.
        offset: in bytes, of its first element.
        dtype: a number of `DTYPES`.
        sizes: of the tensor.
        strides: in elements.
    """

    memory: int
    offset: int
    dtype: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


ABSENT = Operand(-1, 0, 0, (), ())
INTEGER = ABSENT._replace(dtype=DTYPES[torch.int64])  # a Python number that is an int, not a float


class Instruction(NamedTuple):
    """One call of the executor.

    Attributes:
        op: what to do.
        outputs: the number of tensors that are written, the first ones.
        tensors: outputs, then inputs.
        ints: such as dimensions and quantization types.
        floats: such as an epsilon.
    """

    op: str
    outputs: int
    tensors: tuple[Operand, ...]
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()

    @property
    def written(self) -> tuple[Operand, ...]:
        """The tensors that are written."""
        return self.tensors[: self.outputs]

    @property
    def read(self) -> tuple[Operand, ...]:
        """The tensors that are read."""
        return self.tensors[self.outputs :]


@dataclass(slots=True)
class Memory:
    """Bytes that tensors lie in.

    Attributes:
        size: in bytes, as far as the program uses them.
        tensor: what lies there outside the program, whose address counts: parameters, states, inputs. None:
            a temporary of the program, without a place until it is bound.
        constant: the values, if they are the same in all steps; None: they are not known to be.
        mutated: whether an instruction writes into what is there already.
    """

    size: int
    tensor: Tensor | None = None
    constant: Tensor | None = None
    mutated: bool = False


@dataclass
class Program:
    """Instructions in their order, and the memories that they name.

    Attributes:
        instructions: the instructions.
        memories: by their numbers.
        output: the tensor that the step returns.
        names: of memories outside the program that it can be bound to others of: states and inputs.
    """

    instructions: list[Instruction] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    output: Operand = ABSENT
    names: dict[int, Hashable] = field(default_factory=dict)

    def difference(self, other: Program) -> str | None:
        """Return what differs between two recordings of the same step, or None: they do the same."""
        if len(self.instructions) != len(other.instructions):
            return "the number of operators"
        for one, two in zip(self.instructions, other.instructions, strict=True):
            if one != two:
                return f"an operator, {one.op}"
        if self.output != other.output:
            return "where the result lies"
        for number in self.used():
            if not _same(self.memories[number], other.memories[number]):
                return "a tensor that is read"
        return None

    def name(self, tensors: Mapping[Any, Tensor]) -> None:
        """Name the memories that these tensors lie in, so that others can take their place."""
        by_address = {x.untyped_storage().data_ptr(): name for name, x in tensors.items() if x.numel()}
        for number in self.used():
            memory = self.memories[number]
            if memory.tensor is not None:
                name = by_address.get(memory.tensor.untyped_storage().data_ptr())
                if name is not None:
                    self.names[number], memory.tensor = name, None

    def used(self) -> set[int]:
        """Return the numbers of the memories that instructions read or write."""
        return {each.memory for one in self.instructions for each in one.tensors if each.memory >= 0}


def _same(one: Memory, two: Memory) -> bool:
    if one.constant is not None and two.constant is not None:
        return torch.equal(one.constant, two.constant)
    if one.tensor is None or two.tensor is None:
        return one.tensor is two.tensor and one.constant is two.constant
    return one.tensor.untyped_storage().data_ptr() == two.tensor.untyped_storage().data_ptr()
