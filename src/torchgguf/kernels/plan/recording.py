"""Record a step: run it once, and write down what its operators do."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchgguf.kernels.plan.building import Builder
from torchgguf.kernels.plan.fusion import fuse
from torchgguf.kernels.plan.lowering import OPERATOR_ROWS, VIEWS
from torchgguf.kernels.plan.program import PlanError, Program

_local = threading.local()


def is_recording() -> bool:
    """Return whether this thread records a step: no value of a tensor may then decide what is done."""
    return getattr(_local, "recorders", 0) > 0


class Recorder(TorchDispatchMode):
    """A mode that runs each operator and writes it down, for `with torch.inference_mode(), Recorder():`.

    There composite operators come whole: they are not taken apart for autograd. What cannot be written down
    runs all the same, so that the step is what it would have been without the recorder.

    Attributes:
        refused: why there will be no program; None: nothing stands against one so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._builder = Builder()
        self.refused: str | None = None

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch imports its compiler, which takes a second, to keep it away from the method below.
        return False

    def __enter__(self) -> Self:
        """Start to record."""
        _local.recorders = getattr(_local, "recorders", 0) + 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop recording."""
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        _local.recorders -= 1

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, and write it down."""
        kwargs = kwargs or {}
        if operator in VIEWS or self.refused is not None:
            return operator(*args, **kwargs)
        row = OPERATOR_ROWS.get(operator)
        if row is None:
            with self:
                result = operator.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self.refused = f"the operator {operator} has no instruction"
            return operator(*args, **kwargs)
        result = operator(*args, **kwargs)
        try:
            row(self._builder, result, *args, **kwargs)
        except PlanError as error:
            self.refused = f"{operator}: {error}"
        return result

    def program(self, result: Tensor) -> Program:
        """Return what has been recorded, as a program that computes a tensor.

        Raises:
            PlanError: something could not be written down.
        """
        if self.refused is not None:
            raise PlanError(self.refused)
        program = self._builder.finish(result)
        fuse(program)
        return program
