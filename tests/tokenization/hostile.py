"""Tokenizers meant to do harm; as a program, it reports what each does to a process, as a row of JSON."""

import base64
import json
import re
import struct
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchgguf.container import ArrayType, Metadata, ValueType
from torchgguf.tokenization import AutoTokenizer, ChatTemplateError, Tokenizer, TokenizerError

TEXT = "hello aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab ½ é"
_GGUF = "tokenizer.ggml."
_LETTERS = [chr(i) for i in range(33, 127)]


def _json(**parts: Any) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    vocab = {token: i for i, token in enumerate([*_LETTERS, "Ġ", "he"])}
    return {
        "added_tokens": [],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {**model, "vocab": vocab, "merges": ["h e"]},
        **parts,
    }


def _bpe(**parts: Any) -> dict[str, Any]:
    return _json(model={**_json()["model"], **parts})


def _unigram(*vocab: Any, unk_id: int | None = 0) -> dict[str, Any]:
    return _json(model={"type": "Unigram", "unk_id": unk_id, "vocab": [["<unk>", 0.0], *vocab]})


def _normalizers(*steps: dict[str, Any]) -> dict[str, Any]:
    return _json(normalizer={"type": "Sequence", "normalizers": list(steps)})


def _replace(old: str, new: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


def _split(pattern: str) -> dict[str, Any]:
    return _json(
        pre_tokenizer={
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
    )


def _charsmap(data: bytes) -> dict[str, Any]:
    return _normalizers({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()})


def _added(*texts: str, **flags: Any) -> dict[str, Any]:
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False) | flags
    return _json(added_tokens=[{"id": 96 + i, "content": text, **options} for i, text in enumerate(texts)])


def _template(parts: list[Any], tokens: dict[str, Any], pair: list[Any] | None = None) -> dict[str, Any]:
    step = {"type": "TemplateProcessing", "single": parts, "pair": pair or parts, "special_tokens": tokens}
    return _json(post_processor=step)


def _words(longest: int) -> dict[str, Any]:
    return {
        "type": "WordPiece",
        "unk_token": "a",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": longest,
        "vocab": {"a": 0},
    }


_A, _X = ({"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "X", "type_id": 0}})
# A double array with one way: from its root by "a" to the entry 353, and on to the entry 1, a text.
_LETTER_A = [256 << 10, 1 << 31, *[0] * 351, 352 << 10 | 1 << 8 | ord("a"), *[0] * 158]
_DEEP: dict[str, Any] = {"type": "NFC"}
for _ in range(200):
    _DEEP = {"type": "Sequence", "normalizers": [_DEEP]}

# tokenizer.json by what is wrong with it: an object, or its text
FILES: dict[str, Any] = {
    "a prefix of parts of words": _bpe(continuing_subword_prefix="x"),
    "a prefix of parts of words behind an escape": json.dumps(_bpe(continuing_subword_prefix="x")).replace(
        "subword_prefix", "subword\\u005fprefix"
    ),
    "a prefix that is there twice": json.dumps(_bpe(continuing_subword_prefix="x")).replace(
        '"vocab"', '"continuing_subword_prefix": null, "vocab"'
    ),
    "a merge that leaves the vocabulary": _bpe(merges=["h h"]),
    "a merge of three": _bpe(merges=["h e l"]),
    "no model": {"model": None},
    "deep nesting": "[" * 100_000,
    "an unknown token that is none": _bpe(unk_token="<unk>"),
    "ids without end": _bpe(vocab={"a": 0, "b": (1 << 32) - 1}, merges=[]),
    "replacing nothing": _normalizers(_replace("", "x" * 100_000)),
    "replacing nothing by nothing": _normalizers(_replace("", "")),
    "doubling twenty times": _normalizers(*[_replace("a", "aa")] * 20),
    "doubling by regular expressions": _normalizers(*[_replace("a", "aa", "Regex")] * 12),
    "bytes as characters twenty times": _normalizers(*[{"type": "ByteLevel"}] * 20),
    "bytes as characters as words": _json(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [_json()["pre_tokenizer"]] * 20}
    ),
    "a long text before each": _normalizers({"type": "Prepend", "prepend": "x" * 100_000}),
    "deep normalizers": _json(normalizer=_DEEP),
    "many normalizers": _normalizers(*[{"type": "NFC"}] * 20_000),
    "a map without a trie": _charsmap(b"\0\1"),
    "a map that leads out of itself": _charsmap(struct.pack("<I", 1024) + b"\xff" * 1024),
    "a map to long texts": _charsmap(struct.pack("<513I", 2048, *_LETTER_A) + b"x" * 100_000),
    "pieces of no length": _json(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "an exponential expression": _split("(a+)+$"),
    "an exponential expression of alternatives": _split("(?:a|a)+$"),
    "an expression of cubic time": _split("a*a*Z"),
    "an expression of its own": _split("a|" * 500_000 + "b"),
    "an expression of parentheses": _split("(" * 3000 + "a" + ")" * 3000),
    "an exponential normalizer": _normalizers(_replace("(a+)+$", "b", "Regex")),
    "an exponential decoder": _json(
        decoder={"type": "Sequence", "decoders": [_json()["decoder"], _replace("(a+)+$", "b", "Regex")]}
    ),
    "a decoder that doubles": _json(
        decoder={"type": "Sequence", "decoders": [_json()["decoder"], *[_replace("a", "aa")] * 30]}
    ),
    "a tree as deep as a megabyte": _unigram(["a" * 1_000_000, -1.0]),
    "a tree as wide as a megabyte": _unigram(*[[f"{i:04}" + "a" * 1000, -1.0] for i in range(1000)]),
    "no unknown token": _unigram(unk_id=None),
    "an unknown token beyond": _unigram(unk_id=7),
    "a score that is no number": json.dumps(_unigram(["a", -1.0])).replace("-1.0", "1e999"),
    "words of any length": _json(model=_words(10**9)),
    "words without an unknown one": _json(model={"type": "WordLevel", "vocab": {}, "unk_token": "x"}),
    "a token of a megabyte": _added("ab" * 500_000),
    "a megabyte of tokens": _added(*[f"{i:04}" + "ab" * 500 for i in range(2000)]),
    "a token of nothing": _added(""),
    "padding without end": _json(
        padding={
            "strategy": {"Fixed": 10**12},
            "direction": "Right",
            "pad_to_multiple_of": 0,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        }
    ),
    "a text many times": _template([_A] * 10_000, {}),
    "tokens without end around texts": _template(
        [_A, _X], {"X": {"id": "X", "ids": [0] * 100_000, "tokens": ["!"] * 100_000}}
    ),
    "a token around texts that is none": _template(
        [_A, _X], {"X": {"id": "X", "ids": [1 << 30], "tokens": ["!"]}}
    ),
    "a processor without its token": _template([_A, _X], {}),
    "ids with a million gaps": _added("x")
    | {"model": _bpe(vocab={"a": 0, "b": 1 << 20}, merges=[])["model"]},
    "half of a surrogate pair": _added("\ud800"),
}
_SCORED = ["<unk>", "<s>", "</s>", *("a" * i for i in range(1, 1025))]
_T5 = ["<pad>", "</s>", "<unk>", "a"]


def _metadata(model: str, tokens: list[str], **values: Any) -> Metadata:
    metadata = Metadata({_GGUF + "model": model, **{_GGUF + key: value for key, value in values.items()}})
    metadata.set_unchecked(_GGUF + "tokens", tokens, ArrayType(ValueType.STRING))
    return metadata


# metadata of GGUF files by what is wrong with it
METADATA: dict[str, Metadata] = {
    "a merge that leaves the vocabulary": _metadata("gpt2", ["a", "bb"], pre="gpt-2", merges=["a bb"]),
    "tokens that can be cut anywhere": _metadata("llama", _SCORED, scores=[0.0] * len(_SCORED)),
    "tokens of half surrogates": _metadata("bert", [*[f"u{i}" for i in range(104)], "\udcff"]),
    "a tree as deep as a megabyte": _metadata(
        "t5", [*_T5, "a" * 1_000_000], scores=[0.0] * 5, token_type=[3, 3, 2, 1, 1]
    ),
    "tokens to search for without end": _metadata(
        "gpt2",
        [f"{i:04}" + "ab" * 500 for i in range(2000)],
        pre="gpt-2",
        merges=["a b"],
        token_type=[4] * 2000,
    ),
    "a score that is no number": _metadata(
        "t5", _T5, scores=[0.0, 0.0, 0.0, float("nan")], token_type=[3, 3, 2, 1]
    ),
    "a map that leads out of itself": _metadata(
        "t5", _T5, scores=[0.0] * 4, precompiled_charsmap=[0, 4, 0, 0, *[255] * 1024]
    ),
}


def _use(tokenizer: Tokenizer) -> str:
    size = len(tokenizer.vocabulary.tokens)
    ids = tokenizer.encode(TEXT)
    if not all(0 <= i < size for i in ids):
        return f"ids beyond {size}: {ids}"
    tokenizer.decode(ids)
    tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(ids))
    return "fine"


def _file(content: Any, folder: Path) -> Callable[[], str]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "tokenizer.json").write_text(text)
    return lambda: _use(AutoTokenizer.from_pretrained(folder))


def _memory(key: str) -> int:
    (kib,) = re.findall(rf"{key}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(kib) >> 10


def report(name: str, call: Callable[[], str]) -> None:
    """Print a row: the name, what became of the call, seconds of the processor and MiB of memory."""
    before, start = _memory("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")
    try:
        result = call()
    except (TokenizerError, ChatTemplateError) as error:
        result = "refused" if "\n" not in str(error) else f"several lines: {error}"
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
    row = [name, result, time.process_time() - start, _memory("VmHWM") - before]
    print(json.dumps(row), flush=True)


def main(folder: Path) -> None:
    """Report on each file and each metadata."""
    warnings.simplefilter("ignore")
    _file(_json(), folder)()  # so that what is imported and reserved once does not count
    for name, content in FILES.items():
        report(f"tokenizer.json: {name}", _file(content, folder))
    for name, metadata in METADATA.items():
        report(f"GGUF: {name}", lambda metadata=metadata: _use(Tokenizer.from_gguf(metadata)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
