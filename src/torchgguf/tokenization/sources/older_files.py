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
from torchgguf.tokenization.chat.templates import templates_metadata
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.pre_tokenizers import GPT2, PRE_TOKENIZERS, PreTokenizer
from torchgguf.tokenization.kinds.table import presumed_flags
from torchgguf.tokenization.sources.declared import Declarations, class_name, family_of
from torchgguf.tokenization.sources.files import MERGES, PIECES, VOCAB, TokenizerFiles
from torchgguf.tokenization.sources.gguf import GGUFSource
from torchgguf.tokenization.sources.gguf_metadata import model_roles
from torchgguf.tokenization.sources.gguf_vocabularies import piece_lists, space_keys
from torchgguf.tokenization.sources.huggingface import (
    FileSource,
    number_of_ids,
    read_defaults,
    stated_setting,
)
from torchgguf.tokenization.sources.sentencepiece import SentencePieceModel, read_sentencepiece
from torchgguf.tokenization.sources.source import MOST_GAPS, TYPES, Source, padding_tokens
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.vocabulary import PREFIX

# How the classes that have vocab.json and merges.txt split texts.
_RULES = {
    "GPT2Tokenizer": GPT2,
    "Qwen2Tokenizer": replace(PRE_TOKENIZERS["qwen2"], nfc=True),
}


def open_source(
    files: TokenizerFiles,
    pre: str | None = None,
    special: Mapping[str, str] | None = None,
    add_prefix_space: bool | None = None,
) -> Source:
    """The tokenizer that is in the files; the arguments are those of `FileSource`."""
    special = special or {}
    if files.pipeline is not None:
        return FileSource(files, pre, special, add_prefix_space)
    if files.pieces is not None:
        return _from_pieces(files, files.pieces, pre, special, add_prefix_space)
    rule = _RULES.get(class_name(files))
    if rule is None:
        raise TokenizerError(
            f"{VOCAB} and {MERGES} do not say how texts are split, nor does the class "
            f"{class_name(files) or '(none)'!r}; known are {', '.join(_RULES)}"
        )
    if files.vocab is None or files.merges is None:
        raise TokenizerError(f"{VOCAB} needs {MERGES} beside it")
    pipeline = byte_level_pipeline(files.vocab, files.merges, rule)
    return FileSource(replace(files, pipeline=pipeline), pre, special, add_prefix_space, made=True)


def byte_level_pipeline(
    vocab: str | PathLike[str] | Mapping[str, int],
    merges: str | PathLike[str] | Sequence[str | tuple[str, str]],
    rule: PreTokenizer,
) -> str:
    """The tokenizer.json of a byte-level BPE; `vocab` and `merges` are paths or what such files hold.

    FileNotFoundError if there is no such file, TokenizerError if it does not hold what it should.
    """
    ids: Any
    pairs: Any
    for file in (vocab, merges):
        if isinstance(file, str | PathLike) and not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
    try:
        if not isinstance(vocab, Mapping) and isinstance(merges, str | PathLike):
            ids, pairs = models.BPE.read_file(str(vocab), str(merges))
        elif isinstance(vocab, Mapping) and not isinstance(merges, str | PathLike):
            ids = dict(vocab)
            pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]
        else:
            raise TypeError("vocab and merges are both paths, or neither is one")
        number_of_ids(ids)
        backend = Tokenizer(models.BPE(ids, pairs))
    except (TypeError, TokenizerError):
        raise
    except Exception as error:  # the library raises nothing narrower
        raise TokenizerError(f"{VOCAB} and {MERGES} make no byte-level BPE: {error}") from None
    if (
        rule.splits == GPT2.splits
    ):  # which this splits by itself: after it has added a space to the whole text
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.splits]
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    backend.decoder = decoders.ByteLevel()
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    return backend.to_str()


def _from_pieces(
    files: TokenizerFiles,
    data: bytes,
    pre: str | None,
    special: Mapping[str, str],
    add_prefix_space: bool | None,
) -> GGUFSource:
    """The metadata that llama.cpp's converter writes for a SentencePiece model: they say all that it does."""
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
    return GGUFSource(
        metadata, None, read_defaults(files), config, embeddings if type(embeddings) is int else None
    )


def _with_added(pieces: SentencePieceModel, declared: Declarations) -> dict[str, list[Any]]:
    """Tokens, scores and types of the model and of what is added to it."""
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
    """The flags for what is put around texts, where files of the kind have to say it."""
    adds = family_of(files).adds
    if adds is None and kind == "t5":
        raise TokenizerError(
            f"{PIECES} holds a Unigram model, and the class {class_name(files) or '(none)'!r} does not say "
            "what it puts around texts: tokenizer.json would"
        )
    flags = {}
    for end, presumed in presumed_flags(kind, None).items():
        stated = stated_setting(files.config, f"add_{end}_token", bool)
        implied = presumed if adds is None else end in adds
        adding = implied if stated is None else stated
        if adding != presumed or stated is not None:
            flags[f"add_{end}_token"] = adding
    return flags
