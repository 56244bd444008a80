"""The vocabulary of a tokenizer of Hugging Face's files, as GGUF files hold that of its kind.

Each function of `VOCABULARIES` returns the keys, below `tokenizer.ggml.`, that only its kind has, as
llama.cpp's converter writes them; `gguf_metadata` returns those of all kinds. They raise TokenizerError if
readers would tokenize differently with them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf.constants import TokenType

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.bpe import merges_by_score, spell_byte_level
from torchgguf.tokenization.kinds.library import check_lengths
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.parts import SPACE
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS
from torchgguf.tokenization.kinds.wordpiece import CONTINUES, LONGEST_WORD, with_marks
from torchgguf.tokenization.kinds.wrapping import pipeline_state, pipeline_steps
from torchgguf.tokenization.sources.files import PIPELINE, TokenizerFiles
from torchgguf.tokenization.sources.rule_of import name_of_rule
from torchgguf.tokenization.sources.sentencepiece import read_sentencepiece
from torchgguf.tokenization.sources.source import ADDED_SCORE, PADDING_SCORE, padding_tokens

_LINES = PRE_TOKENIZERS["sarvam-moe"]
REFUSED = "GGUF files do not support what this tokenizer does: "
# Added tokens that are control tokens even where a tokenizer does not state it.
_CONTROL_TEXTS = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_CONTROL_ENDS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
# Gemma 4's special tokens that belong to the text that it writes.
_SHOWN = frozenset(
    (
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    )
)
# The options of readers for BERT's words, whatever a file states.
_BERT = {
    "clean_text": True,
    "handle_chinese_chars": True,
    "continuing_subword_prefix": CONTINUES,
    "max_input_chars_per_word": LONGEST_WORD,
}


def _byte_level(files: TokenizerFiles, model: TokenizerModel, size: int, pre: str | None) -> dict[str, Any]:
    """Write byte-level BPE, GPT-2's, whose splitting rules have names."""
    # A space inside of a token is written as byte-level BPE writes it.
    merges = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in _merges(model)]
    return {"model": "gpt2", "pre": pre or _rule(model), **_lists(model, size), "merges": merges}


def _rule(model: TokenizerModel) -> str:
    composes = {"NFC"}  # files do not state it; only tokenizers of composed texts have it
    odd = [f"the normalizer {step['type']}" for step in _normalizers(model) if step["type"] not in composes]
    odd += ["add_prefix_space=True" for step in _splits(model) if step.get("add_prefix_space")]
    _refuse(odd, "; from_pretrained(pre=...) omits it")
    return name_of_rule(model.backend, model.add_bos)


def _characters(files: TokenizerFiles, model: TokenizerModel, size: int, pre: str | None) -> dict[str, Any]:
    """Write SentencePiece's BPE; or Gemma 4's, whose merges do not follow from scores of tokens."""
    spaces = _spaces(model)
    odd = {
        "BPE of characters without byte_fallback": not model.backend.model.byte_fallback,
        "ignore_merges": model.backend.model.ignore_merges,
        "spaces that are merged": spaces.merged,
        "the normalizer Precompiled": spaces.charsmap,
    }
    _refuse(what for what, is_so in odd.items() if is_so)
    pieces = read_sentencepiece(files.pieces) if files.pieces is not None else None
    declared: Iterable[str] = ()
    if pieces is not None and not pieces.unigram:
        scores, types = pieces.scores, pieces.types
        declared = files.config.get("added_tokens_decoder") or ()
    elif not spaces.lines and (made := _scores(model)) is not None:
        scores, types = made, _plain_types(model, len(made))
    else:
        return _listed_characters(model, spaces, size, pre)
    vocabulary = model.vocabulary
    lists = piece_lists(vocabulary.tokens, scores, types, vocabulary.special, {*map(int, declared)}, size)
    prefix = {"add_space_prefix": spaces.prefix}
    is_stated = not spaces.prefix or isinstance(files.config.get("add_prefix_space"), bool)
    return {"model": "llama", "pre": "default", **lists, **(prefix if is_stated else {})}


def _listed_characters(model: TokenizerModel, spaces: _Spaces, size: int, pre: str | None) -> dict[str, Any]:
    """Write Gemma 4's BPE: a list of merges joins each line by itself."""
    merges = [" ".join(pair) for pair in _merges(model)]
    odd = {
        "a space before texts and merges that follow from no scores": spaces.prefix,
        "merges across lines": any(not re.fullmatch(r"[^\n]+|[\n ]+", merge) for merge in merges),
    }
    _refuse(what for what, is_so in odd.items() if is_so)
    lists = _lists(model, size)
    if pre is not None or not model.add_bos:
        return {"model": "gpt2", "pre": pre or "sarvam-moe", **lists, "merges": merges}
    for i, token in enumerate(lists["tokens"]):
        if token in _SHOWN:
            lists["token_type"][i] = int(TokenType.USER_DEFINED)
    flags = {"add_space_prefix": False, "add_bos_token": True}
    return {"model": "gemma4", **lists, "scores": [ADDED_SCORE] * size, "merges": merges, **flags}


def _wordpiece(files: TokenizerFiles, model: TokenizerModel, size: int, pre: str | None) -> dict[str, Any]:
    """Write BERT's WordPiece: the way it finds words has two settings and no name."""
    parts = [*_normalizers(model), *_splits(model)]
    stated = pipeline_state(model.backend.model) or {}
    options = {key: value for part in (*parts, stated) for key, value in part.items()}
    odd = [part["type"] for part in parts if part["type"] not in ("BertNormalizer", "BertPreTokenizer")]
    odd += [f"{name}={options.get(name)}" for name, value in _BERT.items() if options.get(name) != value]
    lists = _lists(model, size)
    lists["tokens"] = with_marks(lists["tokens"], lists["token_type"])
    if len({*lists["tokens"]}) < size:
        odd.append("an added token that is also the rest of a word")
    if (unknown := model.vocabulary.ids.get(options["unk_token"])) is None:
        odd.append("WordPiece without a token for unknown words")
    _refuse(odd)
    values = {
        "model": "bert",
        "pre": "bert-bge",  # which all readers ignore
        **lists,
        "unknown_token_id": unknown,
        "normalizer.lowercase": options["lowercase"],
        "normalizer.strip_accents": options["strip_accents"],
        "token_type_count": files.model.get("type_vocab_size", 1) if files.model else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _unigram(files: TokenizerFiles, model: TokenizerModel, size: int, pre: str | None) -> dict[str, Any]:
    """Write Unigram, T5's and XLM-RoBERTa's."""
    stated = json.loads(model.backend.model.__getstate__())
    if stated["unk_id"] is None:
        _refuse(["Unigram without a token for unknown characters"])
    scores = np.array([score for _, score in stated["vocab"]], np.float32).tolist()
    tokens, types = list(model.vocabulary.tokens), _plain_types(model, len(scores))
    special = model.vocabulary.special
    for i, kind in special.items():
        if kind is TokenType.CONTROL and i < len(scores):
            types[i] = kind
    types[stated["unk_id"]] = TokenType.UNKNOWN
    for i, token in enumerate(tokens[: len(scores)]):
        if token.startswith(" ") and i not in special:  # as unused tokens are saved
            tokens[i], scores[i], types[i] = token[1:], PADDING_SCORE, TokenType.UNUSED
    values = {
        "model": "t5",
        "pre": "default",
        **piece_lists(tokens, scores, types, special, (), size),
        **_spaces(model).keys,
        "unknown_token_id": stated["unk_id"],
        "token_type_count": files.model.get("type_vocab_size"),
    }
    return {name: value for name, value in values.items() if value is not None}


def _bpe(files: TokenizerFiles, model: TokenizerModel, size: int, pre: str | None) -> dict[str, Any]:
    return (_byte_level if model.spell is spell_byte_level else _characters)(files, model, size, pre)


# type of the library's model: what writes its vocabulary of that size; `pre` names its splitting rule
VOCABULARIES: dict[str, Callable[[TokenizerFiles, TokenizerModel, int, str | None], dict[str, Any]]] = {
    "BPE": _bpe,
    "WordPiece": _wordpiece,
    "Unigram": _unigram,
}


def piece_lists(
    tokens: list[str],
    scores: list[float],
    types: list[TokenType],
    added: Mapping[int, TokenType],
    declared: Collection[int],
    size: int,
) -> dict[str, list[Any]]:
    """Return the lists of a SentencePiece vocabulary.

    Args:
        tokens: the tokens by id.
        scores: the scores of the model's own tokens.
        types: their types.
        added: the types of tokens that were added, and of the model's own that texts are searched for.
        declared: the ids of those whose type replaces the model's own for unknown and control tokens.
        size: the number of entries in each list.
    """
    tokens = tokens + padding_tokens(len(tokens), size)
    scores = scores + [PADDING_SCORE] * (size - len(scores))
    types = types + [TokenType.UNUSED] * (size - len(types))
    for i, kind in added.items():
        if i in declared or types[i] not in (TokenType.UNKNOWN, TokenType.CONTROL):
            tokens[i], types[i] = _added(tokens[i], kind)
            scores[i] = ADDED_SCORE
    return {"tokens": tokens, "scores": scores, "token_type": [int(t) for t in types]}


def space_keys(prefix: bool, merged: bool, charsmap: bytes) -> dict[str, Any]:
    """Return the keys for what a Unigram vocabulary does to texts first.

    Args:
        prefix: whether a space is added before texts.
        merged: whether several spaces become one.
        charsmap: the map by which characters are normalized.
    """
    keys: dict[str, Any] = {"add_space_prefix": prefix, "remove_extra_whitespaces": merged}
    return keys | ({"precompiled_charsmap": list(charsmap)} if charsmap else {})


@dataclass(frozen=True)
class _Spaces:
    """What is done to texts before the model.

    Attributes:
        prefix: a space is added before texts.
        merged: several spaces become one.
        lines: each line is joined by itself.
        charsmap: the map by which characters are normalized.
    """

    prefix: bool
    merged: bool
    lines: bool
    charsmap: bytes

    @property
    def keys(self) -> dict[str, Any]:
        return space_keys(self.prefix, self.merged, self.charsmap)


def _spaces(model: TokenizerModel) -> _Spaces:
    """Return what is done to texts before one of SentencePiece's models, in any way to write it."""
    marked = prefix = merged = lines = stripped = apart = apart_words = False
    charsmap, scheme, odd = b"", "", []
    for step in (*_normalizers(model), *_splits(model)):
        match step:
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                marked = True
            case {"type": "Prepend", "prepend": "▁"}:
                prefix = True
            case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}:
                marked, prefix, apart = True, scheme != "never", split
            case {"type": "WhitespaceSplit"}:
                merged = apart_words = True
            case {"type": "Replace", "pattern": {"Regex": " {2,}" | r"\A +| +\z"}}:
                merged = True
            case {"type": "Strip"}:
                stripped = True
            case {"type": "Precompiled", "precompiled_charsmap": text}:
                charsmap = base64.b64decode(text)
            case {"type": "Split", "pattern": {"Regex": pattern}} if (pattern,) == _LINES.splits:
                lines = True
            case {"type": "Split", "pattern": {"String": " "}} if marked:
                pass  # no space is left to split at
            case _:
                odd.append(step["type"])
    inside = (
        SPACE in token[1:]
        for i, token in enumerate(model.vocabulary.tokens)
        if i not in model.vocabulary.special
    )
    checks = {
        "spaces that are not marked": not marked,
        "Strip without merging spaces": stripped and not merged,
        "WhitespaceSplit without a space before each word": apart_words and scheme != "always",
        "tokens with spaces inside, which no text becomes": (apart or apart_words) and any(inside),
    }
    _refuse([*odd, *(what for what, is_so in checks.items() if is_so)])
    return _Spaces(prefix, merged, lines, charsmap)


def _lists(model: TokenizerModel, size: int) -> dict[str, list[Any]]:
    """Return the lists of a vocabulary without scores: tokens and their types."""
    vocabulary = model.vocabulary
    tokens = vocabulary.tokens + padding_tokens(len(vocabulary.tokens), size)
    types = _plain_types(model, len(vocabulary.tokens)) + [TokenType.UNUSED] * (size - len(vocabulary.tokens))
    for i in vocabulary.special:
        tokens[i], types[i] = _added(tokens[i], vocabulary.special[i])
    return {"tokens": tokens, "token_type": [int(t) for t in types]}


def _plain_types(model: TokenizerModel, end: int) -> list[TokenType]:
    """Return the types of the tokens up to `end` as if none were added."""
    tokens, bytes_ = model.vocabulary.tokens, model.vocabulary.bytes_
    types = [TokenType.BYTE if i in bytes_ else TokenType.NORMAL for i in range(end)]
    for i, token in enumerate(tokens[:end]):
        if token.startswith("[PAD") and [token] == padding_tokens(i, i + 1):
            types[i] = TokenType.UNUSED
    return types


def _added(token: str, kind: TokenType) -> tuple[str, TokenType]:
    """Return how an added token is spelled, and its type."""
    looks_special = token in _CONTROL_TEXTS or any(
        token.startswith(start) and token.endswith(end) for start, end in _CONTROL_ENDS
    )
    if kind is TokenType.CONTROL or looks_special:
        return token, TokenType.CONTROL
    return token.replace(SPACE, " "), TokenType.USER_DEFINED


def _merges(model: TokenizerModel) -> list[list[str]]:
    """Return the merges in their order."""
    merges: list[list[str]] = json.loads(model.backend.model.__getstate__())["merges"]
    return merges


def _scores(model: TokenizerModel) -> list[float] | None:
    """Return scores by which SentencePiece joins what the merges join, None if there are none.

    The earlier a merge makes a token, the higher its score; and each way to join the token must be a merge.
    """
    ids = model.backend.get_vocab(with_added_tokens=False)
    scores = dict.fromkeys(range(max(ids.values()) + 1), 0.0)  # added tokens may have ids between these
    made = ["".join(pair) for pair in _merges(model)]
    scores |= {ids[token]: float(-rank) for rank, token in enumerate(dict.fromkeys(made))}
    by_score = sorted(ids, key=lambda token: -scores[ids[token]])
    plain = [token for token in by_score if not {ids[token]} & model.vocabulary.special.keys()]
    check_lengths(PIPELINE, plain)
    joined = ["".join(pair) for pair in merges_by_score(plain, ids)]
    return list(scores.values()) if joined == made else None


def _normalizers(model: TokenizerModel) -> list[Mapping[str, Any]]:
    return pipeline_steps(pipeline_state(model.backend.normalizer), "normalizers")


def _splits(model: TokenizerModel) -> list[Mapping[str, Any]]:
    return pipeline_steps(pipeline_state(model.backend.pre_tokenizer), "pretokenizers")


def _refuse(odd: Iterable[str], advice: str = "") -> None:
    if what := " and ".join(sorted(odd)):
        raise TokenizerError(f"{REFUSED}{what}{advice}")
