"""tokenizer.json, looked at on both sides of the library that reads it, which trusts what it reads.

Before: what would end the process or fill the memory while a tokenizer is built. Files of large vocabularies
are searched for the few keys that matter, as parsing them would take as long as the library does.
After: what would do so, or never end, on the first text. The steps are read from what the library has built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.library import check_added, check_growth, check_lengths
from torchgguf.tokenization.kinds.wrapping import Wrapping, pipeline_state, pipeline_steps
from torchgguf.tokenization.sources.files import PIPELINE
from torchgguf.tokenization.sources.regexes import check_regex

_LONGEST_WORD = 1 << 10  # characters in which WordPiece looks for tokens, by their square; 100 is usual
_MOST_WRAPPED = 1 << 8  # tokens that are added around a text
# A letter or "_" that JSON's writers do not escape: a key might hide behind it.
_HIDDEN = re.compile(r"\\u00(?:5[fF]|6|7)")
# What a BPE has not: parts of other models, or a prefix by which the library cuts tokens blindly.
_RARE = re.compile(
    r'"vocab"\s*:\s*\[|"max_input_chars_per_word"|"continuing_subword_prefix"\s*:\s*(?!null|""|\s)'
)
_REGEX = re.compile(r'"Regex"\s*:\s*"((?:[^"\\]++|\\.)*+)"')
_MOST_REGEX = 1 << 15  # characters of all expressions: a character costs 100 bytes
_ADDED = re.compile(r'"added_tokens"\s*:\s*(?=\[)')


def check_pipeline_text(text: str) -> None:
    """Check that the library can build the tokenizer of a tokenizer.json.

    Args:
        text: the contents of the file.

    Raises:
        TokenizerError: it cannot, or the file is not JSON.
    """
    try:
        if _HIDDEN.search(text) or _RARE.search(text):
            pipeline = json.loads(text, object_pairs_hook=_without_repeats)
            _check_parsed(pipeline)
            _check_size_of_regexes(json.dumps({**pipeline, "model": None}))
        else:
            _check_size_of_regexes(text)
            for place in _ADDED.finditer(text):
                _check_added(json.JSONDecoder().raw_decode(text, place.end())[0])
    except (ValueError, RecursionError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{PIPELINE} is invalid: {error}") from None


def check_pipeline(backend: Tokenizer) -> None:
    """Check that the tokenizer that the library has built encodes and decodes in bounded time and memory.

    Raises:
        TokenizerError: it does not.
    """
    before = [
        *pipeline_steps(pipeline_state(backend.normalizer), "normalizers"),
        *pipeline_steps(pipeline_state(backend.pre_tokenizer), "pretokenizers"),
    ]
    for steps in (before, pipeline_steps(pipeline_state(backend.decoder), "decoders")):
        check_growth(PIPELINE, steps)
        for step in steps:
            pattern = step.get("pattern")
            if isinstance(pattern, Mapping) and isinstance(regex := pattern.get("Regex"), str):
                check_regex(PIPELINE, regex)
    processors = pipeline_steps(pipeline_state(backend.post_processor), "processors")
    check_growth(PIPELINE, processors)
    for step in processors:
        for name in ("single", "pair"):
            texts = [part["Sequence"]["id"] for part in step.get(name, ()) if "Sequence" in part]
            if len(texts) != len({*texts}):
                raise TokenizerError(f"{PIPELINE}: the post_processor writes a text several times")


def check_wrapping(wrapping: Wrapping | None, size: int) -> None:
    """Check that what is added around texts are tokens, and not many.

    Args:
        wrapping: what is added.
        size: the number of ids.

    Raises:
        TokenizerError: it is more, or something else.
    """
    for layout in (wrapping.single, wrapping.pair) if wrapping else ():
        ids = [i for piece in layout for i in piece.ids]
        if len(ids) > _MOST_WRAPPED:
            raise TokenizerError(f"{PIPELINE}: the post_processor adds {len(ids)} tokens to each text")
        if odd := [i for i in ids if type(i) is not int or not 0 <= i < size]:
            raise TokenizerError(f"{PIPELINE}: the post_processor adds the id {odd[0]}, but there are {size}")


def _check_size_of_regexes(text: str) -> None:
    if (size := sum(len(found[1]) for found in _REGEX.finditer(text))) > _MOST_REGEX:
        raise TokenizerError(f"{PIPELINE}: regular expressions have {size} characters, over {_MOST_REGEX}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a key that is there twice, the library may read the other one."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key of an object is there twice")
    return result


def _check_parsed(pipeline: Any) -> None:
    if not isinstance(pipeline, dict) or not isinstance(model := pipeline.get("model"), dict):
        raise ValueError("it has no model")
    _check_added(pipeline.get("added_tokens") or [])
    vocab = model.get("vocab")
    if isinstance(vocab, list):  # Unigram's, whose search tree is as deep as its longest token
        check_lengths(PIPELINE, [row[0] for row in vocab if isinstance(row, list) and _is_text(row)])
    longest = model.get("max_input_chars_per_word", 0)
    if not isinstance(longest, int) or longest > _LONGEST_WORD:
        raise TokenizerError(f"{PIPELINE}: max_input_chars_per_word is {longest!r}, over {_LONGEST_WORD}")
    if "merges" in model and model.get("continuing_subword_prefix"):
        raise TokenizerError(f"{PIPELINE}: continuing_subword_prefix is unsupported for BPE")


def _is_text(row: list[Any]) -> bool:
    return bool(row) and isinstance(row[0], str)


def _check_added(rows: Any) -> None:
    texts = (row.get("content") for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    check_added(PIPELINE, [text for text in texts if isinstance(text, str)])
