"""Fixtures of more than one layer's tests."""

import signal

import pytest
import torch

from torchgguf import kernels
from torchgguf._extension import native


@pytest.fixture(params=native.isas() if native else [])
def isa(request):
    """Run a test with each instruction set of the native part that this CPU has."""
    before = native.isa()
    native.set_isa(request.param)
    yield request.param
    native.set_isa(before)


# Started in the background, a shell has us ignore Ctrl-C, and all that tests start would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def exact_products():
    """Products of many rows with packed weights in FP32, not rounding the activations."""
    with kernels.multiplying_in(torch.float32):
        yield
