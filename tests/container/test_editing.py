"""Metadata are changed as asked, and nothing else is."""

import shutil

import gguf
import numpy as np
import pytest

from tests.container.edited_file import PADDING, TEMPLATE, contents, write_example
from tests.peers.llama_cpp import greedy_text
from tests.support import SMOLLM2
from torchgguf.container import (
    ArrayType,
    GGUFError,
    ValueType,
    edit_metadata,
    open_gguf,
    split_gguf,
)


@pytest.fixture
def path(tmp_path):
    """A file of several types."""
    return write_example(tmp_path / "model.gguf")


def data_of(path):
    """Where the tensors begin, and all bytes from there."""
    start = gguf.GGUFReader(path).data_offset
    return start, path.read_bytes()[start:]


STRING, UINT32 = [gguf.GGUFValueType.STRING], [gguf.GGUFValueType.UINT32]


@pytest.mark.parametrize(
    "set, remove, in_place",
    [
        ({"llama.context_length": 4096}, [], True),  # as long as before
        ({"general.name": "new"}, [], True),
        ({"tokenizer.ggml.tokens": [f"TOKEN {i}" for i in range(300)]}, [], True),  # several sectors
        ({"tokenizer.chat_template": TEMPLATE}, [], False),
        ({"general.author": "somebody"}, [], False),
        ({}, ["tokenizer.chat_template"], True),  # spaces fill what is left
        ({"general.name": "else", "llama.context_length": 7}, ["tokenizer.ggml.scores"], None),
        ({}, [], True),
    ],
)
def test_what_is_asked_is_changed_and_nothing_else(path, set, remove, in_place):
    fields, tensors = contents(path)
    before = data_of(path)
    force = remove == ["tokenizer.ggml.scores"]
    edited = edit_metadata(path, set, remove, force=force)
    assert edited.path == path
    assert list(path.parent.iterdir()) == [path]
    if in_place is not None:
        assert edited.in_place is in_place
    if edited.in_place:
        assert data_of(path) == before
    for key in remove:
        del fields[key]
    for key, value in set.items():
        fields[key] = (fields[key][0] if key in fields else STRING, value)
    assert contents(path) == (fields, tensors)


def test_the_padding_before_the_tensors_is_room(path):
    content, before = path.read_bytes(), data_of(path)
    last = gguf.GGUFReader(path).tensors[-1].field
    left = before[0] - last.offset - sum(part.nbytes for part in last.parts)
    assert 0 <= left < 32
    for more in range(-2, 40):
        path.write_bytes(content)
        assert edit_metadata(path, {"general.name": "x" * (3 + more)}).in_place is (left - 32 < more <= left)
        assert contents(path)[0]["general.name"] == (STRING, "x" * (3 + more))


def test_a_file_written_anew_has_room(path):
    assert not edit_metadata(path, {"tokenizer.chat_template": TEMPLATE}).in_place
    before = data_of(path)
    inode = path.stat().st_ino
    for length in (2 * len(TEMPLATE), 100, 5000, 4990, 4980, 4970, 4960, 14_000, 0):
        assert edit_metadata(path, {"tokenizer.chat_template": "x" * length}).in_place
        assert contents(path)[0]["tokenizer.chat_template"] == (STRING, "x" * length)
        assert data_of(path) == before
    assert edit_metadata(path, {"general.author": "somebody", "general.version": "1"}).in_place
    assert path.stat().st_ino == inode
    assert not edit_metadata(path, {"tokenizer.chat_template": 10 * TEMPLATE}).in_place


def test_room_is_as_asked_and_can_be_removed(path):
    assert not edit_metadata(path, {"general.author": "somebody"}, room=0).in_place
    plain = path.read_bytes()
    assert PADDING not in open_gguf(path).metadata
    assert not edit_metadata(path, {"general.author": "nobody" * 9}, room=100).in_place
    assert open_gguf(path).metadata[PADDING] == 100 * " "
    assert not edit_metadata(path, {"general.author": "somebody"}, [PADDING]).in_place
    assert path.read_bytes() == plain
    with pytest.raises(ValueError, match=r"torchgguf\.padding is reserved for the room of later edits"):
        edit_metadata(path, {PADDING: ""})


def test_types(path):
    edit_metadata(
        path,
        {"general.name": "n", "x.small": 3, "x.list": [1, 2], "x.float": 1.5, "x.bool": True, "x.empty": []},
        types={"x.small": ValueType.UINT8, "x.empty": ArrayType(ValueType.FLOAT32)},
    )
    fields, _ = contents(path)
    kinds = {key: [kind.name for kind in types] for key, (types, _) in fields.items() if key.startswith("x.")}
    assert kinds == {
        "x.small": ["UINT8"],
        "x.list": ["ARRAY", "UINT32"],
        "x.float": ["FLOAT32"],
        "x.bool": ["BOOL"],
        "x.empty": ["ARRAY"],
    }
    assert open_gguf(path).metadata.types["x.empty"] == ArrayType(ValueType.FLOAT32)


@pytest.mark.parametrize(
    "set, remove, types, message",
    [
        ({"general.architecture": "gpt2"}, [], {}, "general.architecture.*how to read"),
        ({}, ["general.architecture"], {}, "general.architecture.*how to read"),
        ({}, ["llama.context_length"], {}, "llama.context_length.*to load the model; force=True"),
        ({"general.alignment": 64}, [], {}, "general.alignment.*positions of the tensors"),
        ({"split.count": 2}, [], {}, "split.count.*split model"),
        ({"tokenizer.ggml.tokens": ["a"]}, [], {}, "each of the 300 tokens, got 1"),
        ({}, ["tokenizer.ggml.scores"], {}, "each of the 300 tokens, got 0"),
        (
            {"llama.context_length": 1},
            [],
            {"llama.context_length": ValueType.INT32},
            "expect uint32, not int32",
        ),
        ({}, ["general.nam"], {}, r"there is no key 'general\.nam'; did you mean general\.name\?"),
        ({"a": 1}, ["a"], {}, "must be either set or removed, not both"),
        ({}, [], {"a": ValueType.INT32}, "types contains 'a', but set does not"),
    ],
)
def test_what_is_refused(path, set, remove, types, message):
    content = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        edit_metadata(path, set, remove, types=types)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "values, message",
    [
        ({"llama.context_length": "x"}, "'llama.context_length': 'x' is not a uint32"),
        ({"llama.context_length": -1}, "-1 does not fit uint32"),
        ({"": 1}, "a key must have 1 to 65535 bytes"),
    ],
)
def test_values_that_do_not_fit(path, values, message):
    content = path.read_bytes()
    with pytest.raises(GGUFError, match=message):
        edit_metadata(path, values, force=True)
    assert path.read_bytes() == content


def test_what_could_not_be_read_again_is_refused(path):
    before = path.read_bytes()
    with pytest.raises(GGUFError, match=r"'a' exceeds the limit of 4194304 values"):
        edit_metadata(path, {"a": [1] * 5_000_000}, types={"a": ArrayType(ValueType.UINT8)})
    assert path.read_bytes() == before


def test_what_is_refused_can_be_forced(path):
    _, tensors = contents(path)
    edit_metadata(path, {"general.architecture": "gpt2", "general.alignment": 128}, force=True)
    assert contents(path)[0]["general.architecture"] == (STRING, "gpt2")
    assert contents(path)[1] == tensors
    assert all(tensor.data_offset % 128 == 0 for tensor in gguf.GGUFReader(path).tensors)
    edit_metadata(path, {}, ["general.alignment"], force=True)
    assert contents(path)[1] == tensors
    with open_gguf(path) as file:
        assert file.alignment == 32
    with pytest.raises(GGUFError, match=r"general\.alignment must be"):
        edit_metadata(path, {"general.alignment": 33}, force=True)


def test_a_split_model_is_edited_in_its_first_file(path, tmp_path):
    parts = split_gguf(path, tmp_path / "part", max_tensors=1)
    second = parts[1].read_bytes()
    edited = edit_metadata(parts[1], {"general.name": "other", "general.url": "https://example.org"})
    assert edited == (parts[0], False)
    assert parts[1].read_bytes() == second
    with open_gguf(parts[0]) as file:
        assert file.metadata["general.name"] == "other"
        assert list(file) == ["a.weight", "b.weight"]
    with pytest.raises(ValueError, match=r"split\.no.*split model"):
        edit_metadata(parts[0], {"split.no": 1})
    edit_metadata(parts[1], {"general.name": "of the second"}, force=True)
    with pytest.raises(GGUFError, match="differs between the shards"):
        open_gguf(parts[0])
    with pytest.raises(ValueError, match=r"general\.name' is also in part-00002-of-00002\.gguf: merge"):
        edit_metadata(parts[0], {"general.name": "x"})


def test_a_big_endian_file_becomes_a_little_endian_one(tmp_path):
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("a", np.arange(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert not edit_metadata(path, {"general.name": "x"}).in_place
    reader = gguf.GGUFReader(path)
    assert reader.endianess == gguf.GGUFEndian.LITTLE
    assert reader.tensors[0].data.tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_llama_cpp_runs_what_was_edited(tmp_path):
    path = tmp_path / "x.gguf"
    shutil.copy(SMOLLM2, path)
    assert not edit_metadata(path, {"general.description": "edited"}).in_place
    assert edit_metadata(path, {"general.description": "edited in place" * 100}, ["general.license"]).in_place
    prompt = "The capital of France is"
    assert greedy_text(path, prompt, 8) == greedy_text(SMOLLM2, prompt, 8)
