"""Operators for recurrences along a text and for causal convolutions; `nn.recurrence` calls them."""

from torchgguf._extension import native
from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)

if native is not None:
    from torchgguf.kernels.recurrence import cpu as _cpu  # noqa: F401 (registers its implementations)

__all__: list[str] = []
