"""Operators for recurrences along a text and for causal convolutions; `nn.recurrence` calls them."""

from torchgguf.kernels.recurrence import ops as _ops  # noqa: F401 (defines the operators)

__all__: list[str] = []
