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
from torchgguf.kernels.plan.lowering.recurrences import RECURRENCES
from torchgguf.kernels.plan.lowering.reductions import REDUCTIONS
from torchgguf.kernels.plan.lowering.views import COPIES, VIEWS

Row = Callable[..., None]

ROWS: dict[Any, Row] = {
    **CREATIONS,
    **COPIES,
    **ELEMENTWISE,
    **REDUCTIONS,
    **PRODUCTS,
    **INDEXING,
    **RECURRENCES,
}

__all__ = ["ROWS", "VIEWS", "Row"]
