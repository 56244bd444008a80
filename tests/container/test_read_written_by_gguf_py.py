"""Files that gguf-py wrote, with every value type, in both byte orders, whole and split."""

import gguf
import numpy as np
import pytest
import torch

from torchgguf.container import ArrayType, GGUFError, ValueType, open_gguf

SCALARS = {
    ValueType.UINT8: 2**8 - 1,
    ValueType.INT8: -(2**7),
    ValueType.UINT16: 2**16 - 1,
    ValueType.INT16: -(2**15),
    ValueType.UINT32: 2**32 - 1,
    ValueType.INT32: -(2**31),
    ValueType.FLOAT32: 0.5,
    ValueType.UINT64: 2**64 - 1,
    ValueType.INT64: -(2**63),
    ValueType.FLOAT64: 0.1,
    ValueType.BOOL: True,
    ValueType.STRING: "zażółć 🙂",
}
TENSORS = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f16": np.arange(24, dtype=np.float16).reshape(4, 3, 2, 1),
    "f64": np.array([1e300, -2.5]),
    "i8": np.array([[-128, 127]], dtype=np.int8),
    "i16": np.array([-32768, 1], dtype=np.int16),
    "i32": np.array([-(2**31), 1], dtype=np.int32),
    "i64": np.array([-(2**63), 1], dtype=np.int64),
}
BOTH_ORDERS = pytest.mark.parametrize("order", list(gguf.GGUFEndian), ids=lambda order: order.name.lower())


def write(path, order=gguf.GGUFEndian.LITTLE, add=lambda writer: None, **options):
    writer = gguf.GGUFWriter(path, "test", endianess=order, **options)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@BOTH_ORDERS
def test_scalars_and_arrays_of_every_type(tmp_path, order):
    def add(writer):
        for value_type, value in SCALARS.items():
            writer.add_key_value(f"one.{value_type.name}", value, value_type)
            writer.add_key_value(f"many.{value_type.name}", [value] * 3, ValueType.ARRAY, value_type)

    write(tmp_path / "x.gguf", order, add)
    with open_gguf(tmp_path / "x.gguf") as file:
        assert (file.byte_order, file.version) == (order.name.lower(), 3)
        for value_type, value in SCALARS.items():
            assert file.metadata[f"one.{value_type.name}"] == value
            assert file.metadata.types[f"one.{value_type.name}"] is value_type
            assert file.metadata[f"many.{value_type.name}"] == [value] * 3
            assert file.metadata.types[f"many.{value_type.name}"] == ArrayType(value_type)
            assert type(file.metadata[f"one.{value_type.name}"]) is type(value)


@BOTH_ORDERS
def test_nested_arrays(tmp_path, order):
    nested = [[["a"], ["b", "c"]], [["d"]]]
    write(tmp_path / "x.gguf", order, lambda writer: writer.add_array("nested", nested))
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.metadata["nested"] == nested
        assert str(file.metadata.types["nested"]) == "[[[string]]]"


@BOTH_ORDERS
def test_inner_arrays_of_different_types(tmp_path, order):
    mixed = [[1, 2], ["x"], [True]]
    write(tmp_path / "x.gguf", order, lambda writer: writer.add_array("mixed", mixed))
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.metadata["mixed"] == mixed
        assert str(file.metadata.types["mixed"]) == "[[int32], [string], [bool]]"


@BOTH_ORDERS
@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_tensors_of_every_plain_type(tmp_path, order, alignment):
    def add(writer):
        if alignment is not None:
            writer.add_custom_alignment(alignment)
        for name, array in TENSORS.items():
            writer.add_tensor(name, array)

    write(tmp_path / "x.gguf", order, add)
    with open_gguf(tmp_path / "x.gguf") as file:
        assert file.alignment == (alignment or 32)
        assert list(file) == list(TENSORS)
        for name, array in TENSORS.items():
            assert torch.equal(file[name], torch.from_numpy(array))
            assert file[name].dtype == torch.from_numpy(array).dtype


def write_split(path, **options):
    def add(writer):
        writer.add_string("general.name", "in pieces")
        for name, array in TENSORS.items():
            writer.add_tensor(name, array)

    write(path / "model.gguf", add=add, split_max_tensors=3, **options)
    return sorted(path.glob("model-*.gguf"))


@pytest.mark.parametrize("named", [0, 1, 2])
def test_a_split_model_opens_by_any_of_its_files(tmp_path, named):
    shards = write_split(tmp_path)
    assert [shard.name for shard in shards] == [f"model-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with open_gguf(shards[named]) as file:
        assert file.paths == tuple(shards)
        assert dict(file.metadata) == {"general.architecture": "test", "general.name": "in pieces"}
        assert [info.shard for info in file.tensors.values()] == [0, 0, 0, 1, 1, 1, 2]
        for name, array in TENSORS.items():
            assert torch.equal(file[name], torch.from_numpy(array))


def test_a_first_shard_without_tensors(tmp_path):
    shards = write_split(tmp_path, small_first_shard=True)
    with open_gguf(shards[-1]) as file:
        assert list(file) == list(TENSORS)
        assert len(file.paths) == 4


def test_a_missing_shard_is_named(tmp_path):
    shards = write_split(tmp_path)
    shards[1].unlink()
    with pytest.raises(GGUFError, match=r"shard 2 of 3 is missing: model-00002-of-00003\.gguf"):
        open_gguf(shards[0])


def test_a_shard_under_another_name(tmp_path):
    shards = write_split(tmp_path)
    with pytest.raises(GGUFError, match=r"alone\.gguf: .*must end in -00002-of-00003\.gguf"):
        open_gguf(shards[1].rename(tmp_path / "alone.gguf"))


def test_shards_in_each_others_place(tmp_path):
    first, second, third = write_split(tmp_path)
    second.rename(tmp_path / "aside")
    third.rename(second)
    (tmp_path / "aside").rename(third)
    with pytest.raises(GGUFError, match=r"00002-of-00003\.gguf: split\.no is 2, but"):
        open_gguf(first)


def test_a_shard_of_another_split(tmp_path):
    (tmp_path / "other").mkdir()
    shards, others = write_split(tmp_path), write_split(tmp_path / "other")
    others[0].replace(shards[1])
    with pytest.raises(GGUFError, match=r"split\.no is 0"):
        open_gguf(shards[0])
