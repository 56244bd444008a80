"""Fixtures of more than one layer's tests."""

import os
import signal

import pytest

# Threads that wait for others spin less; the command line sets this too. torch reads it when it is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

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


@pytest.fixture(scope="session")
def threads():
    """The number of threads that torch chose; tests run with one, as most of their models are tiny."""
    return torch.get_num_threads()


@pytest.fixture(scope="session", autouse=True)
def one_thread(threads):
    """Run with one thread: threads that wait for each other cost tiny models more than they gain."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def all_threads(threads, one_thread):
    """Run the tests of a module with all threads: its models are large."""
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def exact_products():
    """Products of many rows with packed weights in FP32, not rounding the activations."""
    with kernels.multiplying_in(torch.float32):
        yield
