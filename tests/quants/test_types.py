"""The types as such: which there are, how they are found, and what they say to nonsense."""

import copy
import pickle

import gguf
import pytest
import torch

from tests.quants.evidence import goldens
from torchgguf.quants import QuantType, dequantize, quant_type, quant_types, quantize, reference

INTERNAL = {"Q8_1", "Q8_K"}


def test_every_type_of_the_gguf_package_is_there_with_its_id_and_sizes():
    listed = {kind.name: (kind.value, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {kind.name: (kind.id, kind.block_size, kind.type_size) for kind in quant_types()}
    assert {name: ours.get(name) for name in listed.keys() - INTERNAL} == {
        name: listed[name] for name in listed.keys() - INTERNAL
    }


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.file)
def test_ids_and_sizes_are_those_that_ggml_used(golden):
    kind = quant_type(golden.file.removesuffix("_imatrix"))
    assert (kind.id, kind.block_size, kind.type_size) == (
        golden.ggml_type,
        golden.block_size,
        golden.type_size,
    )


@pytest.mark.parametrize("key", ["Q4_K", "q4_k", 12, gguf.GGMLQuantizationType.Q4_K])
def test_a_type_is_found_by_name_id_and_enum(key):
    assert quant_type(key).name == "Q4_K"
    assert quant_type(quant_type(key)) is quant_type("Q4_K")


def test_copies_and_pickles_are_the_type_itself():
    kind = quant_type("Q6_K")
    assert copy.deepcopy(kind) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind


@pytest.mark.parametrize("key", [*sorted(INTERNAL), 9, 15])
def test_types_of_activations_are_refused_with_the_reason(key):
    with pytest.raises(ValueError, match=r"Q8_[1K] is what ggml computes with"):
        quant_type(key)


@pytest.mark.parametrize("key", ["Q9_Z", 4, -1, 1000, "", "12"])
def test_an_unknown_type_is_named_beside_the_known_ones(key):
    with pytest.raises(ValueError, match=rf"unknown quantization type {key!r}: known are F32, F16, Q4_0"):
        quant_type(key)


def test_a_new_type_is_registered_by_being_defined():
    with pytest.raises(TypeError, match=r"container\.tensor_types does not list Q5_7"):

        class Q5_7(QuantType):  # noqa: N801
            def decode(self, blocks):
                return blocks


def test_sizes_of_rows():
    kind = quant_type("Q4_K")
    assert kind.bytes_per_row(512) == 288
    assert kind.weights_per_row(288) == 512
    with pytest.raises(ValueError, match="300 weights a row do not divide into Q4_K blocks of 256"):
        kind.bytes_per_row(300)
    with pytest.raises(ValueError, match="300 bytes a row do not divide into Q4_K blocks of 144 bytes"):
        dequantize(torch.zeros(2, 300, dtype=torch.uint8), kind)


def test_packed_weights_must_be_bytes():
    with pytest.raises(TypeError, match=r"packed Q4_0 weights must be a uint8 tensor, not torch\.float32"):
        dequantize(torch.zeros(2, 18), "Q4_0")


@pytest.mark.parametrize("dequantize", [dequantize, reference.dequantize], ids=["facade", "reference"])
@pytest.mark.parametrize("name", ["Q4_0", "F32"])
def test_a_single_byte_is_no_row(dequantize, name):
    with pytest.raises(ValueError, match=f"packed {name} weights must have a dimension, got a single number"):
        dequantize(torch.tensor(0, dtype=torch.uint8), name)


MINUS_TWO = {
    "F32": "000000c0",
    "F16": "00c0",
    "BF16": "00c0",
    "F64": "00000000000000c0",
    "I8": "fe",
    "I16": "feff",
    "I32": "feffffff",
    "I64": "feffffffffffffff",
}


@pytest.mark.parametrize("name", MINUS_TWO)
def test_plain_types_store_each_number_by_itself(name):
    numbers = torch.tensor([[0, -2, 100], [-2, 3, 4]]).to(quant_type(name).dtype)
    packed = quantize(numbers, name)
    one = len(MINUS_TWO[name]) // 2
    assert packed.shape == (2, 3 * one)
    stored_twice = packed[0, one : 2 * one], packed[1, :one]
    assert [number.numpy().tobytes().hex() for number in stored_twice] == [MINUS_TWO[name]] * 2
    for stored in (packed, numbers):
        assert torch.equal(dequantize(stored, name), numbers.float())


def test_doubles_and_long_integers_lose_nothing_in_their_own_dtype():
    for kind, number in (("F64", 1 / 3), ("I64", 2**62 + 1)):
        own = quant_type(kind).dtype
        numbers = torch.tensor([[number]], dtype=own)
        assert dequantize(quantize(numbers, kind), kind, dtype=own).item() == number
