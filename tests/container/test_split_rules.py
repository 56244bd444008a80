"""What the shards of a split model must say, each rule broken once."""

import math
import struct

import pytest

from torchgguf.container import GGUFError, open_gguf

from .raw import BOOL, F32, INT32, STRING, UINT32, Raw, string

UINT16, FLOAT32 = 2, 6


def shard(number, count, total, tensor, extra=()):
    raw = Raw(tensors=[(tensor, [2], F32, 0)], data=bytes(32))
    raw.pairs = [
        ("split.no", UINT16, raw.number("H", number)),
        ("split.count", UINT16, raw.number("H", count)),
        ("split.tensors.count", INT32, raw.number("i", total)),
        *extra,
    ]
    return raw


def write(path, *shards):
    names = [path / f"m-{i:05}-of-{len(shards):05}.gguf" for i in range(1, len(shards) + 1)]
    for name, raw in zip(names, shards, strict=True):
        name.write_bytes(raw.build())
    return names


def test_two_sound_shards(tmp_path):
    first, _ = write(tmp_path, shard(0, 2, 2, "a"), shard(1, 2, 2, "b"))
    assert list(open_gguf(first)) == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (shard(1, 3, 2, "b"), r"m-00002-of-00002\.gguf: split\.count is 3"),
        (shard(0, 2, 2, "b"), r"m-00002-of-00002\.gguf: split\.no is 0"),
        (shard(1, 2, 2, "a"), r"m-00002-of-00002\.gguf: tensor 'a' is also in m-00001-of-00002\.gguf"),
        (Raw(tensors=[("b", [2], F32, 0)], data=bytes(32)), r"m-00002.*split\.no is missing"),
    ],
)
def test_a_wrong_second_shard(tmp_path, second, message):
    first, _ = write(tmp_path, shard(0, 2, 2, "a"), second)
    with pytest.raises(GGUFError, match=message):
        open_gguf(first)


def test_the_number_of_tensors(tmp_path):
    first, _ = write(tmp_path, shard(0, 2, 3, "a"), shard(1, 2, 3, "b"))
    with pytest.raises(GGUFError, match=r"split\.tensors\.count is 3, but the shards contain 2"):
        open_gguf(first)


def test_metadata_of_later_shards_is_joined_and_may_not_contradict(tmp_path):
    name = ("general.name", STRING, string("x"))
    first, _ = write(
        tmp_path, shard(0, 2, 2, "a", [name]), shard(1, 2, 2, "b", [name, ("n", UINT32, bytes(4))])
    )
    assert dict(open_gguf(first).metadata) == {"general.name": "x", "n": 0}
    write(tmp_path, shard(0, 2, 2, "a", [name]), shard(1, 2, 2, "b", [("general.name", STRING, string("y"))]))
    with pytest.raises(GGUFError, match=r"m-00002-of-00002\.gguf: metadata key 'general\.name' differs"):
        open_gguf(first)


def test_metadata_is_compared_as_it_lies_on_disk(tmp_path):
    nan = ("x", FLOAT32, struct.pack("<f", float("nan")))
    first, _ = write(tmp_path, shard(0, 2, 2, "a", [nan]), shard(1, 2, 2, "b", [nan]))
    assert math.isnan(open_gguf(first).metadata["x"])
    one = ("x", UINT32, struct.pack("<I", 1))
    for other in [
        ("x", BOOL, b"\1"),
        ("x", FLOAT32, struct.pack("<f", 1)),
        ("x", INT32, struct.pack("<i", 1)),
    ]:
        write(tmp_path, shard(0, 2, 2, "a", [one]), shard(1, 2, 2, "b", [other]))
        with pytest.raises(GGUFError, match="metadata key 'x' differs"):
            open_gguf(first)


@pytest.mark.parametrize("count", [0, 1])
def test_a_model_merged_into_one_file_is_no_split_model(tmp_path, count):
    path = tmp_path / "merged.gguf"
    path.write_bytes(shard(0, count, 1, "a").build())
    assert open_gguf(path).metadata["split.count"] == count
