"""Steps of decoding, recorded once and replayed without Python: `Recorder`, `Program`, executors."""

from torchgguf.kernels.plan.binding import (
    BoundProgram,
    Executor,
    NativeExecutor,
    ReferenceExecutor,
    has_native_executor,
)
from torchgguf.kernels.plan.program import Instruction, Operand, PlanError, Program
from torchgguf.kernels.plan.recording import Recorder, is_recording

__all__ = [
    "BoundProgram",
    "Executor",
    "Instruction",
    "NativeExecutor",
    "Operand",
    "PlanError",
    "Program",
    "Recorder",
    "ReferenceExecutor",
    "has_native_executor",
    "is_recording",
]
