"""Whether a step is traced, to be run again for other tokens: compiled, or recorded as a program."""

import torch

from torchgguf.kernels.plan import is_recording


def is_traced() -> bool:
    """Return whether the values of tensors must not decide what is done: only their shapes may."""
    return torch.compiler.is_compiling() or is_recording()
