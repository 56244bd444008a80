"""The native border: whatever Python passes, a kernel touches no byte outside of the tensors."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.kernels.test_recurrence_native import SHAPES as RECURRENCES
from torchgguf.quants import quant_type, quantize

_native = pytest.importorskip("torchgguf._native")

Q8_0 = quant_type("Q8_0").id
ROWS, COLUMNS, OUTPUTS = 2, 64, 3


def arguments(function: str) -> dict:
    """Right ones, by name."""
    weight = quantize(torch.randn(OUTPUTS, COLUMNS), "Q8_0")
    return {
        "linear": {
            "type": Q8_0,
            "weight": weight,
            "x": torch.randn(ROWS, COLUMNS),
            "bias": torch.randn(OUTPUTS),
            "out": torch.empty(ROWS, OUTPUTS),
        },
        "dequantize": {"type": Q8_0, "packed": weight, "out": torch.empty(OUTPUTS, COLUMNS)},
        "embedding": {
            "type": Q8_0,
            "table": weight,
            "indices": torch.tensor([2, 0]),
            "out": torch.empty(2, COLUMNS),
        },
        "quantize": {
            "type": Q8_0,
            "weights": torch.randn(ROWS, COLUMNS),
            "importance": torch.ones(COLUMNS),
            "out": torch.empty(ROWS, 68, dtype=torch.uint8),
        },
    }[function] | {"threads": 2}


FUNCTIONS = ("linear", "dequantize", "embedding", "quantize")
TENSORS = [(f, name) for f in FUNCTIONS for name in arguments(f) if name not in ("type", "threads")]
each_tensor = pytest.mark.parametrize(("function", "name"), TENSORS)


def refused(function: str, **wrong) -> str:
    """Call with right arguments but for `wrong` ones, and return why it was refused."""
    with pytest.raises((ValueError, TypeError)) as error:
        getattr(_native, function)(**arguments(function) | wrong)
    return str(error.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_right_arguments_are_accepted(function):
    getattr(_native, function)(**arguments(function))


@each_tensor
def test_another_dtype_is_refused(function, name):
    right = arguments(function)[name]
    for dtype in (torch.float64, torch.float16, torch.int8, torch.bool, torch.complex64):
        assert refused(function, **{name: right.to(dtype)}).startswith(f"{name} must be ")


@each_tensor
def test_a_tensor_with_gaps_is_refused(function, name):
    right = arguments(function)[name]
    assert (
        refused(function, **{name: right.repeat_interleave(2, -1)[..., ::2]}) == f"{name} must be contiguous"
    )
    if right.dim() > 1:
        assert refused(function, **{name: right.T.contiguous().T}) == f"{name} must be contiguous"
        assert refused(function, **{name: right[:1].expand_as(right)}) == f"{name} must be contiguous"


@each_tensor
def test_another_size_is_refused(function, name):
    right = arguments(function)[name]
    for wrong in (right[..., :-1].contiguous(), torch.cat([right, right], -1), right[..., :0]):
        refused(function, **{name: wrong})
    if right.dim() > 1 and name not in ("table",):
        for wrong in (right[:-1].contiguous(), torch.cat([right, right]), right[:0]):
            refused(function, **{name: wrong})


@each_tensor
def test_a_number_instead_of_dimensions_is_refused(function, name):
    refused(function, **{name: arguments(function)[name].flatten()[0].clone()})


@each_tensor
def test_what_is_not_in_memory_is_refused(function, name):
    right = arguments(function)[name]
    refused(function, **{name: right.to("meta")})
    freed = right.clone()
    freed.untyped_storage().resize_(0)
    assert refused(function, **{name: freed}) == f"{name} must be in memory"


@each_tensor
@pytest.mark.parametrize(
    "wrong",
    [0, -1, 2**70, "tensor", b"bytes", [1.0], torch.Tensor, object()],
    ids=["zero", "negative", "large", "text", "bytes", "list", "class", "object"],
)
def test_what_is_not_a_tensor_is_refused(function, name, wrong):
    refused(function, **{name: wrong})


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("type", [-1, 9, 15, 43, 1000, 2**31 - 1])
def test_a_type_that_no_tensor_has_is_refused(function, type):
    assert refused(function, type=type) == f"no native kernel reads ggml type {type}"


def test_plain_types_are_not_packed():
    assert refused("quantize", type=quant_type("F16").id) == "ggml type 1 does not pack"


@pytest.mark.parametrize("index", [-1, OUTPUTS, 2**63 - 1, -(2**63)])
def test_an_index_outside_the_table_is_refused(index):
    with pytest.raises(IndexError, match=rf"index {index} is outside the {OUTPUTS} embeddings"):
        _native.embedding(**arguments("embedding") | {"indices": torch.tensor([0, index])})


CHANGE_INDICES_MEANWHILE = """
import threading
import torch
from torchgguf import _native

table = torch.zeros(4, 34, dtype=torch.uint8)
indices = torch.zeros(2**18, dtype=torch.int64)
out = torch.empty(2**18, 32)
done = threading.Event()

def change():
    last = indices[-1:]
    while not done.is_set():
        last.fill_(2**50)

changer = threading.Thread(target=change)
changer.start()
decoded = 0
for _ in range(100):
    indices.zero_()
    try:
        _native.embedding(8, table, indices, out, 1)
        decoded += 1
    except IndexError:
        pass
done.set()
changer.join()
assert decoded
"""


def test_indices_that_another_thread_changes_are_those_that_were_checked():
    """In a process of its own, which a read outside of the table would end."""
    command = [sys.executable, "-c", CHANGE_INDICES_MEANWHILE]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "wrap", [torch.Tensor.view_as, lambda empty, _: DLPackOnly(empty)], ids=["torch", "dlpack"]
)
def test_an_empty_tensor_is_contiguous_with_any_strides(wrap):
    empty = torch.empty(0, 2 * COLUMNS)[:, ::2]
    assert empty.stride() == (2 * COLUMNS, 2)
    empty = wrap(empty, empty)
    _native.linear(**arguments("linear") | {"x": empty, "out": torch.empty(0, OUTPUTS)})
    packed = torch.empty(0, 136, dtype=torch.uint8)[:, ::2]
    _native.dequantize(**arguments("dequantize") | {"packed": wrap(packed, packed), "out": empty})


@pytest.mark.parametrize("number", [-(2**31), -1, 0, 1, 2**31 - 1])
def test_any_number_of_threads_computes(number):
    expected = arguments("linear")
    _native.linear(**expected)
    result = expected | {"out": torch.empty(ROWS, OUTPUTS), "threads": number}
    _native.linear(**result)
    assert torch.equal(result["out"], expected["out"])


class DLPackOnly:
    """What offers its memory as torch before 2.10 does: by a call of Python alone."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.requires_grad = tensor, tensor.requires_grad

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def detach(self):
        return DLPackOnly(self.tensor.detach())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("wrap", [DLPackOnly, lambda tensor: tensor.numpy()], ids=["dlpack", "numpy"])
def test_other_tensors_are_read_and_checked_alike(function, wrap):
    expected = arguments(function)
    getattr(_native, function)(**expected)
    out = torch.zeros_like(expected["out"])
    wrapped = {name: wrap(a) for name, a in (expected | {"out": out}).items() if isinstance(a, torch.Tensor)}
    getattr(_native, function)(**expected | wrapped)
    assert torch.equal(out, expected["out"])
    for name in wrapped:
        right = expected[name]
        gaps = wrap(right.repeat_interleave(2, -1)[..., ::2])
        assert refused(function, **wrapped | {name: gaps}) == f"{name} must be contiguous"
        assert "must be" in refused(function, **wrapped | {name: wrap(right.double())})
        refused(function, **wrapped | {name: wrap(right[..., :-1].contiguous())})


@pytest.mark.parametrize("wrap", [torch.Tensor.clone, DLPackOnly], ids=["torch", "dlpack"])
def test_tensors_that_require_gradients_and_bfloat16_are_read(wrap):
    right = arguments("linear")
    _native.linear(**right)
    out = torch.empty(ROWS, OUTPUTS)
    x = right["x"].clone().requires_grad_()
    _native.linear(**right | {"x": x if wrap is torch.Tensor.clone else wrap(x), "out": out})
    assert torch.equal(out, right["out"])
    right = arguments("dequantize")
    _native.dequantize(**right)
    out = torch.empty(OUTPUTS, COLUMNS, dtype=torch.bfloat16)
    _native.dequantize(**right | {"out": out if wrap is torch.Tensor.clone else wrap(out)})
    assert torch.equal(out, right["out"].bfloat16())


def test_memory_that_must_not_be_written_is_refused_as_output():
    out = np.empty((OUTPUTS, COLUMNS), np.float32)
    out.flags.writeable = False
    refused("dequantize", out=out)


def test_no_reference_is_kept_or_lost():
    right = arguments("linear")
    wrong = torch.randn(ROWS, COLUMNS - 1)
    tensors = [argument for argument in right.values() if isinstance(argument, torch.Tensor)]
    counts = [sys.getrefcount(tensor) for tensor in tensors]
    for _ in range(100):
        _native.linear(**right)
        with pytest.raises(ValueError, match="columns of x must be 64, got 63"):
            _native.linear(**right | {"x": wrong})
    assert [sys.getrefcount(tensor) for tensor in tensors] == counts


def test_every_function_that_takes_tensors_is_tried_here():
    takes_tensors = {n for n, f in inspect.getmembers(_native, callable) if "Tensor" in (f.__doc__ or "")}
    assert takes_tensors == {*FUNCTIONS, *RECURRENCES}  # these in test_recurrence_native
