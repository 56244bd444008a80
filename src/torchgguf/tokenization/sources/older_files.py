"""Tokenizers from files older than tokenizer.json: vocab.json with merges.txt, and tokenizer.model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from gguf.constants import TokenType
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from torchgguf.container import Metadata
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.library import library_errors
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from torchgguf.tokenization.kinds.table import presumed_flags
from torchgguf.tokenization.sources.chat_templates import templates_metadata
from torchgguf.tokenization.sources.declared import Declarations, class_name, class_of
from torchgguf.tokenization.sources.files import MERGES, PIECES, VOCAB, TokenizerFiles
from torchgguf.tokenization.sources.gguf import MetadataSource
from torchgguf.tokenization.sources.gguf_metadata import model_roles
from torchgguf.tokenization.sources.gguf_vocabularies import piece_lists, space_keys
from torchgguf.tokenization.sources.huggingface import (
    number_of_ids,
    read_defaults,
    stated_setting,
)
from torchgguf.tokenization.sources.sentencepiece import SentencePieceModel, read_sentencepiece
from torchgguf.tokenization.sources.source import MOST_GAPS, TYPES, padding_tokens
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.values import PREFIX

# The splitting rules of the classes that have vocab.json and merges.txt.
_RULES = {
    "GPT2Tokenizer": PRE_TOKENIZERS["gpt-2"],
    "Qwen2Tokenizer": replace(PRE_TOKENIZERS["qwen2"], nfc=True),
}


def byte_level_files(files: TokenizerFiles) -> TokenizerFiles:
    """Return the files with the tokenizer.json for vocab.json and merges.txt.

    Raises:
        TokenizerError: a file is invalid or missing, or the tokenizer's class has no known splitting rule.
    """
    rule = _RULES.get(class_name(files))
    if rule is None:
        raise TokenizerError(
            f"{VOCAB} and {MERGES} do not state how texts are split, nor does the class "
            f"{class_name(files) or '(none)'!r}; known are {', '.join(_RULES)}"
        )
    if files.vocab is None or files.merges is None:
        raise TokenizerError(f"{VOCAB} needs {MERGES} beside it")
    return replace(files, pipeline=byte_level_pipeline(files.vocab, files.merges, rule))


def byte_level_pipeline(
    vocab: str | PathLike[str] | Mapping[str, int],
    merges: str | PathLike[str] | Sequence[str | tuple[str, str]],
    rule: PreTokenizer,
) -> str:
    """Return the tokenizer.json of a byte-level BPE.

    Args:
        vocab: the path of vocab.json, or the ids by token.
        merges: the path of merges.txt, or the merges in their order.
        rule: how texts are split.

    Raises:
        FileNotFoundError: a file is missing.
        TokenizerError: the vocabulary or the merges are invalid.
        TypeError: one of them is a path, the other is not.
    """
    ids: Any
    pairs: Any
    for file in (vocab, merges):
        if isinstance(file, str | PathLike) and not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
    if isinstance(vocab, Mapping) is isinstance(merges, str | PathLike):
        raise TypeError("vocab and merges must both be paths, or neither")
    with library_errors(f"{VOCAB} and {MERGES} are invalid for a byte-level BPE", building=True):
        if isinstance(vocab, Mapping) and not isinstance(merges, str | PathLike):
            ids = dict(vocab)
            pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
        else:
            ids, pairs = models.BPE.read_file(str(vocab), str(merges))
        number_of_ids(ids)
        backend = Tokenizer(models.BPE(ids, pairs))
    if rule.splits == PRE_TOKENIZERS["gpt-2"].splits:  # its own rule: it splits after adding a space
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    backend.decoder = decoders.ByteLevel()
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    return backend.to_str()


def pieces_source(
    files: TokenizerFiles,
    data: bytes,
    pre: str | None,
    special: Mapping[str, str],
    add_prefix_space: bool | None,
) -> MetadataSource:
    """Return the source for tokenizer.model: the metadata of llama.cpp's converter, which states all of it.

    Args:
        files: the files beside it.
        data: its contents.
        pre: must be None, as no rule splits texts.
        special: the tokens by role that replace those of the files.
        add_prefix_space: whether a space is added before texts, in place of what the files state.

    Raises:
        TokenizerError: a file is invalid, or does not state enough.
        ImportError: the package protobuf is missing.
    """
    if pre is not None:
        raise TokenizerError(f"pre={pre!r}: no rule for splitting text is used where there is a {PIECES}")
    pieces, declared = read_sentencepiece(data), Declarations(files, special)
    lists = _with_added(pieces, declared)

    ids = {token: i for i, token in enumerate(lists["tokens"])}
    stated = {
        role: ids[declared.roles[role].content] for role in declared.stated_roles if role in declared.roles
    }
    implied = {role: i for role, i in pieces.roles.items() if role in ("bos", "eos")}
    prefix = add_prefix_space
    if prefix is None:
        prefix = stated_setting(files.config, "add_prefix_space", bool)
    if prefix is None and not pieces.add_space_prefix:
        prefix = False
    values: dict[str, Any] = {"model": "llama", "pre": "default", **lists}
    if pieces.unigram:
        values |= {"model": "t5"} | space_keys(pieces.add_space_prefix, pieces.merges_spaces, pieces.charsmap)
        implied["unk"] = pieces.roles["unk"]
    roles = implied | model_roles(files, len(ids)) | stated
    values |= {ROLE_KEYS[role][0]: i for role, i in roles.items()}
    values |= _adding(files, values["model"])
    if prefix is not None:
        values["add_space_prefix"] = prefix
    metadata = Metadata({PREFIX + key: value for key, value in values.items()}, TYPES)
    metadata.update(templates_metadata(files.templates))
    embeddings = files.model.get("vocab_size")
    config = {**files.config, **({} if prefix is None else {"add_prefix_space": prefix})}
    size = embeddings if type(embeddings) is int else None
    return MetadataSource(metadata, None, read_defaults(files), config, size, own=len(pieces.tokens))


def _with_added(pieces: SentencePieceModel, declared: Declarations) -> dict[str, list[Any]]:
    """Return the tokens, scores and types of the model and of what is added to it."""
    tokens = list(pieces.tokens)
    added = declared.other_tokens(())
    known = {*tokens, *(token.content for token in added.values())}
    for token in (*declared.sentinels, *declared.special_tokens):
        if token.content not in known:
            known.add(token.content)
            added[max(len(tokens), *(i + 1 for i in added), 0)] = token
    size = max(len(tokens), *(i + 1 for i in added), 0)
    if size - len(known) > MOST_GAPS:
        raise TokenizerError(f"{PIECES} has {len(tokens)} tokens, but others are declared up to {size - 1}")
    kinds = {i: TokenType.CONTROL if t.special else TokenType.USER_DEFINED for i, t in added.items()}
    tokens += padding_tokens(len(tokens), size)
    for i, token in added.items():
        tokens[i] = token.content
    return piece_lists(tokens, pieces.scores, pieces.types, kinds, added, size)


def _adding(files: TokenizerFiles, kind: str) -> dict[str, bool]:
    """Return the flags for what is added around texts, where the defaults of the kind do not fit."""
    adds = class_of(files).adds
    if adds is None and kind == "t5":
        raise TokenizerError(
            f"{PIECES} holds a Unigram model, and the class {class_name(files) or '(none)'!r} does not state "
            "what is added around texts: a tokenizer.json would"
        )
    flags = {}
    for end, presumed in presumed_flags(kind, None).items():
        stated = stated_setting(files.config, f"add_{end}_token", bool)
        implied = presumed if adds is None else end in adds
        adding = implied if stated is None else stated
        if adding != presumed or stated is not None:
            flags[f"add_{end}_token"] = adding
    return flags
