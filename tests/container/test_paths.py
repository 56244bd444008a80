"""Paths that no file can have are an OSError that names them, whatever is asked for."""

import errno

import pytest

from torchgguf.container import edit_metadata, merge_gguf, open_gguf, split_gguf, undo_unfinished, write_gguf
from torchgguf.container.reading.recognition import has_gguf_magic, is_gguf_file

CALLS = {
    "open": open_gguf,
    "open unmapped": lambda path: open_gguf(path, mmap=False),
    "write": lambda path: write_gguf(path, {}, {}),
    "edit": lambda path: edit_metadata(path, {"a": 1}),
    "force": lambda path: edit_metadata(path, {"a": 1}, force=True),
    "undo": undo_unfinished,
    "split": lambda path: split_gguf(path, path, max_tensors=1),
    "merge": lambda path: merge_gguf(path, path),
    "magic": has_gguf_magic,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "name, number",
    [
        ("nul\0.gguf", errno.EINVAL),
        ("lone\ud800.gguf", errno.EINVAL),
        ("loop.gguf", errno.ELOOP),
        ("loop.gguf/x.gguf", errno.ELOOP),
        ("long" * 100 + ".gguf", errno.ENAMETOOLONG),
    ],
    ids=["NUL", "surrogate", "loop", "loop of folders", "long"],
)
def test_each_call(tmp_path, call, name, number):
    (tmp_path / "loop.gguf").symlink_to("pool.gguf")
    (tmp_path / "pool.gguf").symlink_to("loop.gguf")
    with pytest.raises(OSError) as caught:
        call(f"{tmp_path}/{name}")
    assert caught.value.errno == number
    assert name.partition("/")[0] in caught.value.filename
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.gguf", "pool.gguf"]


@pytest.mark.parametrize("name", ["nul\0", "lone\ud800"])
def test_a_name_that_no_file_has_is_no_file(name):
    assert not is_gguf_file(name)
    assert is_gguf_file(f"{name}.gguf")  # by its name; opening it says why not
