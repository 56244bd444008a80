"""Both ways of reading strings, native and in Python, on the same bytes."""

import struct

import pytest
from hypothesis import given, strategies as st

from torchgguf import _native
from torchgguf.container.reading import strings

from .raw import string

BOTH = pytest.mark.parametrize(
    ("skip", "decode"),
    [
        (_native.skip_strings, _native.decode_strings),
        (strings.skip_strings_python, strings.decode_strings_python),
    ],
    ids=["native", "python"],
)


def test_the_native_one_is_used_where_it_was_built():
    assert strings.decode_strings is _native.decode_strings
    assert strings.skip_strings is _native.skip_strings


@BOTH
@given(texts=st.lists(st.binary(max_size=12)), before=st.binary(max_size=9), order=st.sampled_from("<>"))
def test_any_bytes_come_back(skip, decode, texts, before, order):
    buffer = before + b"".join(string(text, order) for text in texts) + b"after"
    walked = skip(buffer, len(before), len(texts), order == ">")
    decoded, end = decode(buffer, len(before), len(texts), order == ">")
    assert walked == (len(texts), len(buffer) - 5)
    assert end == len(buffer) - 5
    assert [text.encode("utf-8", "surrogateescape") for text in decoded] == texts


@BOTH
def test_known_texts(skip, decode):
    texts = ["", "a", "Ġthe", "日本語", "🙂", "\x00"]
    decoded, _ = decode(b"".join(map(string, texts)), 0, len(texts), False)
    assert decoded == texts


@BOTH
@pytest.mark.parametrize(
    ("buffer", "offset", "count", "expected"),
    [
        (b"", 0, 1, (0, 0)),
        (string("ab")[:-1], 0, 1, (0, 0)),
        (string("ab") + string("cd")[:7], 0, 2, (1, 10)),
        (string("ab"), 0, 2**60, (1, 10)),
        (string("ab"), 11, 1, (0, 11)),
        (struct.pack("<Q", 2**64 - 1) + b"x", 0, 1, (0, 0)),
        (struct.pack("<Q", 2**64 - 8), 0, 1, (0, 0)),
    ],
)
def test_nothing_is_read_past_the_end(skip, decode, buffer, offset, count, expected):
    assert skip(buffer, offset, count, False) == expected
    with pytest.raises(ValueError, match="past the end"):
        decode(buffer, offset, count, False)
