"""Metadata: values, the types they get, and that these are kept."""

import copy
import enum
import pickle

import numpy as np
import pytest

from torchgguf.container import ArrayType, GGUFError, Metadata, ValueType, type_name


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "name", "plain"),
    [
        (True, "bool", True),
        (0, "uint32", 0),
        (2**32 - 1, "uint32", 2**32 - 1),
        (2**32, "uint64", 2**32),
        (2**64 - 1, "uint64", 2**64 - 1),
        (-1, "int32", -1),
        (-(2**31) - 1, "int64", -(2**31) - 1),
        (1.5, "float32", 1.5),
        ("x", "string", "x"),
        (Colour.RED, "uint32", 3),
        ([1, 2], "[uint32]", [1, 2]),
        ([1, -2], "[int32]", [1, -2]),
        ([2**32, -1], "[int64]", [2**32, -1]),
        ([1, 2.5], "[float32]", [1, 2.5]),
        ((1.5, 2.5), "[float32]", [1.5, 2.5]),
        ([True, False], "[bool]", [True, False]),
        (["a", "b"], "[string]", ["a", "b"]),
        ([[1], [2, 3]], "[[uint32]]", [[1], [2, 3]]),
        ([[1], ["a"]], "[[uint32], [string]]", [[1], ["a"]]),
        (np.uint8(3), "uint8", 3),
        (np.float64(0.1), "float64", 0.1),
        (np.float16(0.5), "float32", 0.5),
        (np.bool_(True), "bool", True),
        (np.str_("x"), "string", "x"),
        ([np.int16(1), np.int16(2)], "[int16]", [1, 2]),
        (np.array([1, 2], dtype=np.int8), "[int8]", [1, 2]),
        (np.array([[1.5]], dtype=np.float32), "[[float32]]", [[1.5]]),
    ],
)
def test_what_a_value_becomes(value, name, plain):
    metadata = Metadata({"key": value})
    assert type_name(metadata.types["key"]) == name
    assert metadata["key"] == plain
    assert type(metadata["key"]) is type(plain)


@pytest.mark.parametrize("value", [None, b"x", {}, [], [1, "a"], [1, [2]], [None], 2**64, -(2**63) - 1])
def test_values_without_a_type(value):
    with pytest.raises(GGUFError, match="metadata key 'key'"):
        Metadata({"key": value})


@pytest.mark.parametrize(
    ("value_type", "good", "bad"),
    [
        (ValueType.UINT8, 255, 256),
        (ValueType.UINT8, 1, 1.0),
        (ValueType.UINT8, 1, True),
        (ValueType.INT64, -(2**63), 2**63),
        (ValueType.FLOAT32, 1, 1e39),
        (ValueType.FLOAT64, 1e39, "1"),
        (ValueType.BOOL, True, 1),
        (ValueType.STRING, "x", 1),
        (ValueType.STRING, "x", "\ud800"),
        (ArrayType(ValueType.INT8), [], [1, 128]),
        (ArrayType(ValueType.INT8), [1], 1),
        (ArrayType(ArrayType(ValueType.STRING)), [["a"], []], [["a"], [1]]),
        (ArrayType((ArrayType(ValueType.INT8), ArrayType(ValueType.STRING))), [[1], ["a"]], [[1]]),
    ],
)
def test_a_key_keeps_its_type(value_type, good, bad):
    metadata = Metadata({"key": good}, types={"key": value_type})
    with pytest.raises(GGUFError, match="metadata key 'key'"):
        metadata["key"] = bad
    assert metadata == {"key": good}
    metadata["key"] = good
    assert metadata.types == {"key": value_type}


def test_the_culprit_in_a_long_list_is_named():
    with pytest.raises(GGUFError, match="metadata key 'key': 300 does not fit uint8"):
        Metadata().set("key", [1] * 10_000 + [300] + [1] * 10_000, ArrayType(ValueType.UINT8))


def test_an_array_type_must_say_what_it_holds():
    with pytest.raises(GGUFError, match="ArrayType"):
        Metadata().set("key", [1], ValueType.ARRAY)


def test_a_deleted_key_forgets_its_type():
    metadata = Metadata({"a": 1, "b": 2, "c": 3, "d": 4})
    del metadata["a"]
    assert metadata.pop("b") == 2
    assert metadata.pop("b", None) is None
    assert metadata.popitem()[0] in {"c", "d"}
    metadata.clear()
    assert not metadata.types
    metadata["a"] = "now a string"
    assert metadata.types == {"a": ValueType.STRING}


def test_every_way_to_set_a_value_gives_it_a_type():
    metadata = Metadata([("a", 1)])
    metadata.update({"b": 1}, c=1)
    metadata |= {"d": 1}
    assert metadata.setdefault("e", 1) == metadata.setdefault("e", 2) == 1
    merged = metadata | {"f": 1}
    assert list(merged) == list(merged.types) == ["a", "b", "c", "d", "e", "f"]
    assert "f" not in metadata


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, Metadata.copy, Metadata, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_keep_values_order_and_types(clone):
    metadata = Metadata({"b": 1, "a": [1]}, types={"b": ValueType.INT8, "a": ArrayType(ValueType.UINT16)})
    other = clone(metadata)
    assert type(other) is Metadata
    assert list(other.items()) == list(metadata.items())
    assert other.types == metadata.types
    other["c"] = 1
    assert "c" not in metadata
    assert "c" not in metadata.types
