"""The table from torch's operators to instructions: one row an operator, one file a family.

A row is a function `(builder, result, *arguments)`: the operator has run, and the row writes down what it
did. `VIEWS` have no rows, as a view of a tensor is just another operand.
"""

from collections.abc import Callable
from typing import Any

from torchgguf.kernels.plan.lowering.creation import CREATIONS
from torchgguf.kernels.plan.lowering.elementwise import ELEMENTWISE
from torchgguf.kernels.plan.lowering.indexing import INDEXING
from torchgguf.kernels.plan.lowering.products import PRODUCTS
from torchgguf.kernels.plan.lowering.recurrences import RECURRENCE_ROWS
from torchgguf.kernels.plan.lowering.reductions import REDUCTIONS
from torchgguf.kernels.plan.lowering.views import COPIES, VIEWS

OperatorRow = Callable[..., None]

OPERATOR_ROWS: dict[Any, OperatorRow] = {
    **CREATIONS,
    **COPIES,
    **ELEMENTWISE,
    **REDUCTIONS,
    **PRODUCTS,
    **INDEXING,
    **RECURRENCE_ROWS,
}

__all__ = ["OPERATOR_ROWS", "VIEWS", "OperatorRow"]
