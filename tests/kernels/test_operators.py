"""The operators against ggml's own unpacked data, on every instruction set, and torch's operator checks."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support import QUANT_VECTORS
from torchgguf import _native, kernels
from torchgguf.kernels.ops import REFERENCE
from torchgguf.quants import quant_type

TYPES = sorted(path.stem for path in QUANT_VECTORS.glob("*.npz"))
FEW, MANY = 3, 40  # rows of activations: read packed, and unpacked in tiles


def golden(name: str) -> tuple[Tensor, Tensor]:
    """Packed rows and what ggml unpacks them to."""
    with np.load(QUANT_VECTORS / f"{name}.npz") as data:
        kind = "packed" if "packed" in data.files else "packed_imatrix"
        return torch.from_numpy(data[kind]), torch.from_numpy(data["un" + kind])


@pytest.fixture
def fp32_matmul():
    kernels.set_matmul_dtype(torch.float32)
    yield
    kernels.set_matmul_dtype(None)


def activations(rows: int, features: int) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(rows))


def assert_product(actual: Tensor, x: Tensor, weight: Tensor, tolerance: float) -> None:
    """Each element is right to `tolerance` of what its terms could add up to."""
    exact = x.double() @ weight.double().T
    scale = x.double().norm(dim=1, keepdim=True) * weight.double().norm(dim=1)
    assert ((actual - exact).abs() <= tolerance * scale + 1e-30).all()


@pytest.mark.parametrize("name", TYPES)
def test_dequantize_is_exact(name, isa):
    packed, unpacked = golden(name)
    assert torch.equal(kernels.dequantize(packed, name).view(torch.int32), unpacked.view(torch.int32))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(kernels.dequantize(packed, name, dtype), unpacked.to(dtype))


@pytest.mark.parametrize("name", TYPES)
def test_embedding_is_exact(name, isa):
    packed, unpacked = golden(name)
    indices = torch.tensor([[7, 0, 3], [3, 3, 1]])
    assert torch.equal(kernels.embedding(indices, packed, name), unpacked[indices])
    assert torch.equal(
        kernels.embedding(indices.int(), packed, name, torch.bfloat16), unpacked[indices].bfloat16()
    )


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("rows", [1, 2, FEW, 4, 7, MANY])
def test_linear(name, rows, isa, fp32_matmul):
    packed, unpacked = golden(name)
    x = activations(rows, unpacked.shape[1])
    assert_product(kernels.linear(x, packed, name), x, unpacked, 3e-5)


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"])
@pytest.mark.parametrize("blocks", [1, 3, 15])
def test_linear_on_rows_that_end_within_a_vector(name, blocks, isa):
    packed, unpacked = golden(name)
    packed = packed[:, : blocks * quant_type(name).type_size].contiguous()
    unpacked = unpacked[:, : blocks * 32]
    x = activations(2, blocks * 32)
    assert_product(kernels.linear(x, packed, name), x, unpacked, 3e-5)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K", "IQ2_XS"])
def test_linear_on_rows_longer_than_a_segment(name, isa):
    packed, unpacked = golden(name)
    packed, unpacked = packed.repeat(1, 5), unpacked.repeat(1, 5)
    x = activations(3, unpacked.shape[1])
    assert_product(kernels.linear(x, packed, name), x, unpacked, 3e-5)


@pytest.mark.parametrize("name", ["Q4_1", "Q5_0", "Q4_K", "Q6_K"])
def test_bf16_products_are_as_good_as_bf16_is(name):
    packed, unpacked = golden(name)
    x, g = activations(MANY, 512).requires_grad_(), activations(MANY, 8)
    kernels.set_matmul_dtype(torch.bfloat16)
    try:
        y = kernels.linear(x, packed, name)
        y.backward(g)
    finally:
        kernels.set_matmul_dtype(None)
    assert_product(y.detach(), x.detach(), unpacked, 1e-3)
    assert_product(x.grad, g, unpacked.T, 8e-3)  # eight terms: their rounding does not average out


def test_many_rows_are_multiplied_as_the_machine_does_best():
    packed, unpacked = golden("Q4_K")
    x = activations(MANY, 512)
    bf16 = _native.has_native_bf16()
    assert_product(kernels.linear(x, packed, "Q4_K"), x, unpacked, 1e-3 if bf16 else 1e-6)
    plain = torch.randn(8, 512)
    assert_product(kernels.linear(x, plain.view(torch.uint8), "F32"), x, plain, 1e-6)
    with pytest.raises(ValueError, match=r"not torch\.int8"):
        kernels.set_matmul_dtype(torch.int8)


@pytest.mark.parametrize("rows", [1, FEW, MANY])
@pytest.mark.parametrize("features", [1, 37, 1500])
def test_plain_types_of_any_length(rows, features):
    x = activations(rows, features)
    for dtype, name in ((torch.float32, "F32"), (torch.float16, "F16"), (torch.float64, "F64")):
        plain = torch.randn(5, features, dtype=dtype)
        assert_product(kernels.linear(x, plain.view(torch.uint8), name), x, plain, 3e-5)


def test_exact_numbers_stay_exact():
    doubles = torch.tensor([[1 / 3, 1e300]], dtype=torch.float64)
    assert torch.equal(kernels.dequantize(doubles.view(torch.uint8), "F64", torch.float64), doubles)
    longs = torch.tensor([[2**62 + 1, -1]])
    assert torch.equal(kernels.dequantize(longs.view(torch.uint8), "I64", torch.int64), longs)
    row = torch.tensor([0])
    assert torch.equal(kernels.embedding(row, longs.view(torch.uint8), "I64", torch.int64), longs)
    packed, unpacked = golden("Q4_K")
    x = activations(FEW, 512).double()
    assert_product(kernels.linear(x, packed, "Q4_K"), x, unpacked, 1e-15)


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_linear_keeps_dtype_and_leading_dimensions_and_adds_bias(rows, dtype, fp32_matmul):
    packed, unpacked = golden("Q4_K")
    x = activations(rows, 512).to(dtype)
    bias = activations(1, 8)[0]
    y = kernels.linear(x.view(1, rows, 1, 512), packed, "Q4_K", bias.to(dtype))
    assert y.dtype == dtype and y.shape == (1, rows, 1, 8)
    expected = F.linear(x.float(), unpacked, bias.to(dtype).float())
    torch.testing.assert_close(
        y.view(rows, 8).float(), expected, rtol=2e-2, atol=2e-2 * expected.std().item()
    )


@pytest.mark.parametrize("name", ["Q5_0", "Q6_K", "IQ3_S", "F16"])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_gradients_reach_activations_and_bias(name, rows, fp32_matmul):
    packed, unpacked = golden(name)
    x = activations(rows, 512).requires_grad_()
    bias = activations(1, 8)[0].requires_grad_()
    weights = activations(rows, 8)
    (kernels.linear(x, packed, name, bias).tanh() * weights).sum().backward()
    x2, bias2 = x.detach().clone().requires_grad_(), bias.detach().clone().requires_grad_()
    (F.linear(x2, unpacked, bias2).tanh() * weights).sum().backward()
    torch.testing.assert_close(x.grad, x2.grad, rtol=1e-3, atol=1e-3 * x2.grad.std().item())
    torch.testing.assert_close(bias.grad, bias2.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["Q5_0", "Q4_K", "IQ3_S", "MXFP4", "BF16"])
def test_gradients_are_exact(name):
    """In float64, against differences; also those of gradients."""
    packed, _ = golden(name)
    x = activations(3, 512).double().requires_grad_()
    bias = activations(1, 8)[0].double().requires_grad_()

    def product(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return kernels.linear(x, packed, name, bias)

    assert torch.autograd.gradcheck(product, (x, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(product, (x, bias), fast_mode=True)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "Q6_K", "IQ2_XXS"])
def test_operators_pass_torchs_checks(name):
    packed, _ = golden(name)
    type_id = quant_type(name).id
    x = activations(FEW, 512)
    check = torch.library.opcheck
    check(torch.ops.torchgguf.dequantize.default, (packed, type_id, torch.float32))
    check(torch.ops.torchgguf.quantize.default, (x, type_id, torch.ones(512)))
    check(torch.ops.torchgguf.embedding.default, (torch.tensor([1, 2]), packed, type_id, torch.float32))
    check(torch.ops.torchgguf.linear.default, (x, packed, type_id))
    check(
        torch.ops.torchgguf.linear.default,
        (x.requires_grad_(), packed, type_id, torch.ones(8, requires_grad=True)),
    )
    check(
        torch.ops.torchgguf.linear_backward.default, (activations(FEW, 8).requires_grad_(), packed, type_id)
    )


@pytest.mark.parametrize("name", TYPES)
def test_the_torch_reference_computes_the_same(name):
    packed, unpacked = golden(name)
    type_id = quant_type(name).id
    x = activations(FEW, 512)
    assert torch.equal(REFERENCE["dequantize"](packed, type_id, torch.float32), unpacked)
    assert torch.equal(
        REFERENCE["embedding"](torch.tensor([[5, 2]]), packed, type_id, torch.float32),
        unpacked[torch.tensor([[5, 2]])],
    )
    assert_product(REFERENCE["linear"](x, packed, type_id), x, unpacked, 1e-6)
    g = activations(FEW, 8)
    assert_product(REFERENCE["linear_backward"](g, packed, type_id), g, unpacked.T, 1e-6)


def test_same_result_for_any_number_of_threads():
    packed, _ = golden("Q5_0")
    packed = packed.repeat(500, 1)
    x = activations(2, 512)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = kernels.linear(x, packed, "Q5_0")
        torch.set_num_threads(4)
        assert torch.equal(kernels.linear(x, packed, "Q5_0"), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["Q4_0", "Q6_K"])
def test_what_is_not_finite_stays_so(name, bad, isa):
    packed, _ = golden(name)
    x = activations(2, 512)
    x[1, 100] = bad
    y = kernels.linear(x, packed, name)
    assert y[0].isfinite().all() and not y[1].isfinite().any()


def test_zeros_give_zeros(isa):
    packed, _ = golden("Q4_K")
    assert torch.equal(kernels.linear(torch.zeros(2, 512), packed, "Q4_K"), torch.zeros(2, 8))


def test_strided_tensors_are_read_right(fp32_matmul):
    packed, unpacked = golden("Q8_0")
    x = activations(FEW, 1024)[:, ::2]
    assert_product(kernels.linear(x, packed[::2], "Q8_0"), x, unpacked[::2], 3e-5)
    assert torch.equal(kernels.dequantize(packed[::2], "Q8_0"), unpacked[::2])


def test_a_large_strided_table_is_read_right():
    packed, unpacked = golden("Q8_0")
    table = packed.repeat(10_000, 1)[::2]
    indices = torch.tensor([0, 39_999, 17])
    assert torch.equal(kernels.embedding(indices, table, "Q8_0"), unpacked[::2].repeat(10_000, 1)[indices])


@pytest.mark.parametrize("rows", [0, FEW, MANY])
def test_empty_tensors_are_fine(rows):
    packed, _ = golden("Q8_0")
    x = torch.ones(rows, 512, requires_grad=True)
    y = kernels.linear(x[:, :0], packed[:, :0], "Q8_0", torch.ones(8))
    assert torch.equal(y, torch.ones(rows, 8))
    y = kernels.linear(x, packed[:0], "Q8_0")
    assert y.shape == (rows, 0)
    y.sum().backward()
    assert torch.equal(x.grad, torch.zeros(rows, 512))
    assert kernels.linear(x[:0], packed, "Q8_0").shape == (0, 8)
    assert kernels.embedding(torch.empty(0, rows, dtype=torch.int64), packed, "Q8_0").shape == (0, rows, 512)
    assert kernels.dequantize(packed[:0], "Q8_0").shape == (0, 512)


def test_empty_tensors_with_gaps_are_fine():
    packed, _ = golden("Q8_0")
    assert kernels.linear(torch.empty(0, 1024)[:, ::2], packed, "Q8_0").shape == (0, 8)
    no_rows = torch.empty(0, 2 * packed.shape[1], dtype=torch.uint8)[:, ::2]
    assert kernels.linear(torch.ones(FEW, 512), no_rows, "Q8_0").shape == (FEW, 0)
    assert kernels.dequantize(no_rows, "Q8_0").shape == (0, 512)
    no_indices = torch.empty(0, 4, dtype=torch.int64)[:, ::2]
    assert kernels.embedding(no_indices, packed, "Q8_0").shape == (0, 2, 512)
    assert kernels.quantize(torch.empty(0, 1024)[:, ::2], "Q8_0").shape == (0, packed.shape[1])


def test_numbers_under_torchs_negative_bit_are_negated():
    """The native part cannot see the bit, so torch must resolve it before."""
    packed, _ = golden("Q8_0")
    x = activations(FEW, 512)
    negative = torch._neg_view(x)
    assert negative.is_neg()
    assert torch.equal(kernels.linear(negative, packed, "Q8_0"), kernels.linear(-x, packed, "Q8_0"))
    assert torch.equal(kernels.quantize(negative, "Q8_0"), kernels.quantize(-x, "Q8_0"))


CALLERS = {
    "operator": lambda name: getattr(torch.ops.torchgguf, name).default,
    "reference": lambda name: REFERENCE[name],
}


@pytest.mark.parametrize("caller", CALLERS)
def test_errors_name_the_culprit(caller):
    linear, backward, embedding = map(CALLERS[caller], ("linear", "linear_backward", "embedding"))
    packed, _ = golden("Q8_0")
    q8_0 = quant_type("Q8_0").id
    f32 = torch.float32
    for rows in (1, MANY):
        x = torch.ones(rows, 512)
        with pytest.raises(
            ValueError, match=r"500\) does not match the packed Q8_0 weight, which is 8 × 512"
        ):
            linear(torch.ones(rows, 500), packed, q8_0)
        with pytest.raises(ValueError, match=r"bias has shape \(1,\), but the weight has 8 rows"):
            linear(x, packed, q8_0, torch.ones(1))
        with pytest.raises(ValueError, match=r"two dimensions, not the shape \(544,\)"):
            linear(x, packed[0], q8_0)
        with pytest.raises(ValueError, match=r"two dimensions, not the shape \(2, 4, 544\)"):
            backward(torch.ones(rows, 8), packed.view(2, 4, -1), q8_0)
    with pytest.raises(ValueError, match="weight is on meta, input and bias are on cpu"):
        linear(torch.ones(1, 512), packed.to("meta"), q8_0)
    with pytest.raises(ValueError, match="two dimensions"):
        embedding(torch.tensor([0]), packed.view(2, 4, -1), q8_0, f32)
    with pytest.raises(ValueError, match=r"not torch\.bool"):
        embedding(torch.tensor([True]), packed, q8_0, f32)
    for index in (8, -1):
        with pytest.raises(IndexError):
            embedding(torch.tensor([0, index]), packed, q8_0, f32)


def test_errors_name_the_type():
    packed, _ = golden("Q8_0")
    with pytest.raises(ValueError, match="Q8_0 tensor is uint8 with a multiple of 34 bytes"):
        kernels.dequantize(packed[:, :33], "Q8_0")
    with pytest.raises(ValueError, match="Q9_0"):
        kernels.dequantize(packed, "Q9_0")
    with pytest.raises(IndexError, match="-1 is outside the 8 embeddings"):
        kernels.embedding(torch.tensor([-1]), packed, "Q8_0")


def test_works_under_torch_compile():
    packed, unpacked = golden("Q4_K")
    x = activations(FEW, 512)
    compiled = torch.compile(lambda x: kernels.linear(x.relu(), packed, "Q4_K") + 1, backend="aot_eager")
    assert_product(compiled(x) - 1, x.relu(), unpacked, 1e-4)
