"""Peephole rules: neighbouring instructions that one instruction does faster.

A rule looks at the instruction that would be the last one of such a group. It only sees temporaries that one
instruction writes, once and whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torchgguf.kernels.plan.program import ABSENT, Instruction, Operand, Program

_ACTIVATIONS = {"unary:silu": "silu_mul", "unary:gelu": "gelu_mul", "unary:gelu_tanh": "gelu_tanh_mul"}


class _Graph:
    """The instructions of a program, by what they write.

    Attributes:
        instructions: in their order; None where one has gone into another.
    """

    def __init__(self, program: Program) -> None:
        self.instructions: list[Instruction | None] = [*program.instructions]
        self._memories = program.memories
        self._reads = Counter(x.memory for each in program.instructions for x in each.read)
        self._reads[program.output.memory] += 1
        writers: dict[int, list[int]] = {}
        for i, each in enumerate(program.instructions):
            for x in each.written:
                writers.setdefault(x.memory, []).append(i)
        self._writer = {memory: found[0] for memory, found in writers.items() if len(found) == 1}
        self._written = writers

    def is_temporary(self, operand: Operand) -> bool:
        """Return whether an operand lies in a temporary of the program."""
        memory = self._memories[operand.memory]
        return memory.tensor is None and memory.constant is None

    def maker(self, operand: Operand, only_reader: bool = True) -> int | None:
        """Return the place of the instruction that makes just this temporary, or None.

        Args:
            operand: what another instruction reads.
            only_reader: whether nothing else may read it.
        """
        if operand.memory < 0 or not self.is_temporary(operand):
            return None
        if only_reader and self._reads[operand.memory] != 1:
            return None
        place = self._writer.get(operand.memory)
        if place is None or (found := self.instructions[place]) is None:
            return None
        return place if found.outputs == 1 and found.tensors[0] == operand else None

    def is_settled(self, operand: Operand, place: int) -> bool:
        """Return whether an operand has its value at a place already, and keeps it."""
        return all(i < place for i in self._written.get(operand.memory, ()))

    def unchanged(self, operand: Operand, first: int, last: int) -> bool:
        """Return whether nothing writes into the memory of an operand between two places."""
        return not any(first < i < last for i in self._written.get(operand.memory, ()))


def _gated(graph: _Graph, i: int, one: Instruction) -> bool:
    """Write `act(gate) * up` as one instruction."""
    if one.op != "binary:mul" or ABSENT.memory in (x.memory for x in one.read):
        return False
    for gate, up in (one.read, one.read[::-1]):
        place = graph.maker(gate)
        if place is None or (made := graph.instructions[place]) is None or made.op not in _ACTIVATIONS:
            continue
        if made.floats or not graph.unchanged(made.read[0], place, i):
            continue
        tensors = (*one.written, made.read[0], up)
        graph.instructions[place] = None
        graph.instructions[i] = Instruction(f"binary:{_ACTIVATIONS[made.op]}", 1, tensors, (), (1.0,))
        return True
    return False


def _rotation(graph: _Graph, i: int, one: Instruction) -> bool:
    """Write `x * cos + roll(x, half) * sin` as one instruction."""
    if one.op != "addcmul" or one.floats != (1.0,):
        return False
    out, product, rolled, sin = one.tensors
    first, second = graph.maker(product), graph.maker(rolled)
    if first is None or second is None:
        return False
    scaled, joined = graph.instructions[first], graph.instructions[second]
    if scaled is None or joined is None or scaled.op != "binary:mul" or joined.op != "cat":
        return False
    x, cos = scaled.read
    if x.memory < 0 or cos.memory < 0 or out.sizes != x.sizes or cos.sizes != sin.sizes:
        return False
    if not _are_halves(joined, x) or not graph.unchanged(x, min(first, second), i):
        return False
    graph.instructions[first] = graph.instructions[second] = None
    graph.instructions[i] = Instruction("rope", 1, (out, x, cos, sin), (0,))
    return True


def _are_halves(joined: Instruction, x: Operand) -> bool:
    """Return whether the two halves of the last dimension of `x` are joined in the other order."""
    if len(joined.read) != 2 or joined.ints != (len(x.sizes) - 1,):
        return False
    half, item = x.sizes[-1] // 2, 4
    sizes = (*x.sizes[:-1], half)
    low = x._replace(sizes=sizes)
    high = low._replace(offset=x.offset + half * x.strides[-1] * item)
    return x.dtype == 0 and joined.read == (high, low)


def _added_norm(graph: _Graph, i: int, one: Instruction) -> bool:
    """Write a sum and its norm as one instruction, in the place of the norm."""
    if one.op not in ("rms_norm", "layer_norm"):
        return False
    place = graph.maker(one.read[0], only_reader=False)
    if place is None or (added := graph.instructions[place]) is None:
        return False
    if added.op != "binary:add" or added.floats != (1.0,) or added.read[0].sizes != added.read[1].sizes:
        return False
    if any(x.memory < 0 or x.sizes != added.tensors[0].sizes for x in added.read):
        return False
    # The instruction comes in the place of the sum, so that what reads it in between still finds it.
    if not all(x.memory < 0 or graph.is_settled(x, place) for x in one.read[1:]):
        return False
    tensors = (*one.written, *added.tensors, *one.read[1:])
    graph.instructions[place] = Instruction(f"{one.op}:add", 2, tensors, (), one.floats)
    graph.instructions[i] = None
    return True


_RULES: tuple[Callable[[_Graph, int, Instruction], bool], ...] = (_gated, _rotation, _added_norm)


def fuse(program: Program) -> None:
    """Replace groups of instructions by single ones; what a program computes stays the same."""
    graph = _Graph(program)
    for i, one in enumerate(program.instructions):
        for rule in _RULES:
            if rule(graph, i, one):
                break
    kept = [x for x in graph.instructions if x is not None]
    program.instructions = _joined_products(kept, graph.is_temporary)


def _joined_products(
    instructions: list[Instruction], is_temporary: Callable[[Operand], bool]
) -> list[Instruction]:
    """Write all products with the same activations as one instruction, in the place of the first."""
    groups: list[tuple[int, list[Instruction]]] = []
    by_input: dict[Operand, int] = {}
    for i, one in enumerate(instructions):
        if one.op == "linear" and not any(x.memory >= 0 and is_temporary(x) for x in one.read[1:]):
            if (known := by_input.get(one.read[0])) is not None:
                groups[known][1].append(one)
                continue
            by_input[one.read[0]] = len(groups)
        groups.append((i, [one]))
        written = {x.memory for x in one.written}
        # A product with what has changed is no part of an earlier group.
        for x in [x for x in by_input if x.memory in written]:
            del by_input[x]
    return [_product(members) if len(members) > 1 else members[0] for _, members in groups]


def _product(members: list[Instruction]) -> Instruction:
    outputs = [one.tensors[0] for one in members]
    weights = [one.read[1] for one in members]
    biases = [one.read[2] for one in members]
    kinds = [one.ints[1] for one in members]
    tensors = (*outputs, members[0].read[0], *weights, *biases)
    return Instruction("linear", len(members), tensors, (len(members), *kinds))
