"""Linear layers whose rows files contain as several matrices."""

import gguf
import pytest
import torch
from torch.testing import assert_close

from torchgguf.nn.stacked import QuantizedStackedLinear, StackedLinear
from torchgguf.quants import quant_type

PARTS = ("gate_proj", "up_proj")
ROWS, COLUMNS = 48, 64


@pytest.fixture(scope="module")
def layer() -> StackedLinear:
    torch.manual_seed(0)
    linear = StackedLinear(COLUMNS, 2 * ROWS, PARTS)
    torch.nn.init.normal_(linear.weight)
    return linear


def packed(layer: StackedLinear, types: dict[str, str]) -> QuantizedStackedLinear:
    """The layer with some matrices packed; the others stay plain."""
    stacked = layer
    for name, kind in types.items():
        matrix = layer.weight.detach().chunk(2)[PARTS.index(name)].numpy()
        blocks = torch.from_numpy(gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[kind]))
        stacked = stacked.pack(f"{name}.weight", blocks, quant_type(kind), torch.float32)
    return stacked


def test_each_matrix_is_a_slot(layer):
    with torch.device("meta"):
        empty = StackedLinear(COLUMNS, 2 * ROWS, PARTS)
    for slot in reversed(list(layer.slots())):
        assert slot.shape == (ROWS, COLUMNS) and slot.packable
        empty.fill(slot.name, slot.read().clone())
    assert torch.equal(empty.weight, layer.weight)


@torch.no_grad()
@pytest.mark.parametrize(
    "types", [{"gate_proj": "Q4_0", "up_proj": "Q8_0"}, {"up_proj": "Q8_0"}], ids=["both", "one"]
)
def test_packed_it_is_that_of_the_weights_it_holds(layer, types, exact_products):
    stacked, x = packed(layer, types), torch.randn(32, COLUMNS)
    plain = stacked.dequantize()
    assert_close(stacked(x), plain(x), atol=1e-4, rtol=1e-4)
    assert [slot.quant_type.name for slot in stacked.slots()] == [
        *types.values(),
        *["F32"] * (2 - len(types)),
    ]
    for name in PARTS:
        weights = plain.weight.chunk(2)[PARTS.index(name)]
        assert torch.equal(weights, layer.weight.chunk(2)[PARTS.index(name)]) == (name not in types)
    assert stacked(x.bfloat16()).dtype == torch.bfloat16
