"""Hugging Face's files as metadata of a GGUF file: the keys and values of llama.cpp's converter.

Sources: `conversion/base.py` (`_set_vocab_gpt2`, `_set_vocab_sentencepiece`, `_set_vocab_llama_hf`),
`conversion/bert.py`, `conversion/t5.py` and `gguf-py/gguf/vocab.py` (`SpecialVocab`). Where other readers
would tokenize differently with what it writes, this is true to the tokenizer:

- A SentencePiece vocabulary without its tokenizer.model gets scores by the order of its merges. The converter
  writes the same score for all tokens, by which a reader joins others than the tokenizer does. Where no
  scores fit, merges are listed, as the converter does for Gemma 4.
- Tokens that texts are searched for are marked so, wherever they are declared, and spelled as in texts.
- Spaces are merged, or added before texts, if the tokenizer does that, whatever its config states.
- Tokens with roles, and whether BOS and EOS are added, are written wherever a reader's default differs.
"""

from __future__ import annotations

from collections.abc import Mapping

from torchgguf.container import Metadata
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.table import KINDS, presumed_flags
from torchgguf.tokenization.kinds.wrapping import (
    Piece,
    flags_of,
    pipeline_state,
    pipeline_steps,
    read_wrapping,
)
from torchgguf.tokenization.sources.chat_templates import templates_metadata
from torchgguf.tokenization.sources.declared import ROLES, Declarations
from torchgguf.tokenization.sources.files import TokenizerFiles
from torchgguf.tokenization.sources.gguf_vocabularies import REFUSED, VOCABULARIES
from torchgguf.tokenization.sources.source import TYPES, checked_size
from torchgguf.tokenization.vocab.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocab.values import PREFIX


def write_metadata(
    files: TokenizerFiles,
    special: Mapping[str, str],
    model: TokenizerModel,
    pre: str | None,
    vocab_size: int | None,
) -> Metadata:
    """Return the keys `tokenizer.*` for a tokenizer of Hugging Face's files.

    Args:
        files: the files.
        special: the tokens by role that replace those of the files.
        model: the tokenizer.
        pre: the name of its splitting rule; found by trying if it is None.
        vocab_size: the model's number of embeddings, if it is known.

    Raises:
        TokenizerError: GGUF does not support what the tokenizer does, or no known rule splits texts as it
            does.
    """
    stated = files.model.get("vocab_size")
    tokens = len(model.vocabulary.tokens)
    if vocab_size is None and isinstance(stated, int) and stated > tokens:
        vocab_size = stated
    size = checked_size(tokens, vocab_size)
    name = type(model.backend.model).__name__
    if name not in VOCABULARIES:
        raise TokenizerError(f"{REFUSED}{name}; supported are {', '.join(VOCABULARIES)}")
    values = VOCABULARIES[name](files, model, size, pre)
    if pre not in (None, values.get("pre")):
        raise TokenizerError(
            f"pre={pre!r}: no rule for splitting text is used where {PREFIX}model is {values['model']!r}"
        )
    roles = _roles(files, special, model)
    presumed = KINDS[values["model"]].roles
    roles |= {
        role: i
        for role, i in model.vocabulary.roles.items()
        if role not in roles and presumed.get(role, i) != i
    }
    if KINDS[values["model"]].encloses and "eos" in roles:
        roles["sep"] = roles["eos"]  # with which readers end texts
    values = {
        **{ROLE_KEYS[role][0]: i for role, i in roles.items()},
        **_flags(files, model, roles, values["model"], values.get("pre")),
        **values,
    }
    metadata = Metadata({PREFIX + key: value for key, value in values.items()}, TYPES)
    metadata.update(templates_metadata(files.templates))
    return metadata


def _roles(files: TokenizerFiles, special: Mapping[str, str], model: TokenizerModel) -> dict[str, int]:
    """Return the ids by role: as the tokenizer's files state, else the model's, else as its class implies.

    What is added around texts decides the rest. If texts end with another token than EOS, that token becomes
    EOS, and EOS becomes EOT.
    """
    known = model.vocabulary.roles
    stated = Declarations(files, special).stated_roles
    implied = {role: known[role] for role in ("bos", "eos") if role in known}
    by_files = {role: known[role] for role in ROLES if role in known and role in stated}
    roles = implied | model_roles(files, len(model.vocabulary.tokens)) | by_files
    if model.wrapping is None:
        return roles
    first, last = model.wrapping.single[0].ids, model.wrapping.single[-1].ids
    if len(first) == 1:
        roles.setdefault("bos", first[0])
    if len(last) == 1 and roles.setdefault("eos", last[0]) != last[0]:
        roles |= {"eot": roles["eos"], "eos": last[0]}
    return roles


def model_roles(files: TokenizerFiles, tokens: int) -> dict[str, int]:
    """Return the ids by role that the model's config.json states.

    An id outside the vocabulary means that there is no such token: many files have -1 for that.

    Args:
        files: the files.
        tokens: the number of tokens.
    """
    ids = {role: files.model.get(f"{role}_token_id") for role in ROLES}
    return {role: i for role, i in ids.items() if type(i) is int and 0 <= i < tokens}


def _flags(
    files: TokenizerFiles, model: TokenizerModel, roles: Mapping[str, int], kind: str, pre: str | None
) -> dict[str, bool]:
    """Return the flags that the converter writes, and those whose defaults do not fit."""
    flags: dict[str, bool] | None = {"bos": model.add_bos, "eos": model.add_eos}
    if model.wrapping is not None:
        flags = flags_of(model.wrapping, roles, single_only=True)
    if flags is None:
        raise TokenizerError(
            f"{REFUSED}it adds more around texts than BOS and EOS; tokenizer.add_bos_token changes that"
        )
    presumed = presumed_flags(kind, pre)
    if KINDS[kind].encloses and flags != presumed:
        raise TokenizerError(f"{REFUSED}it does not put texts between two tokens, as readers of {kind!r} do")
    stated = {end for end, adds in flags.items() if adds != presumed[end]}
    stated |= {end for end in flags if isinstance(files.config.get(f"add_{end}_token"), bool)}
    processor = pipeline_state(model.backend.post_processor)
    if any(step["type"] == "ByteLevel" for step in pipeline_steps(processor, "processors")):
        stated |= flags.keys()
    if (wrapping := read_wrapping(processor)) is not None:
        first, last = wrapping.single[0].ids, wrapping.single[-1].ids
        stated |= {end for end, ids in (("bos", first), ("eos", last)) if ids}
        between = _between_texts(wrapping.pair, first, last)
        if between:
            ends = {(roles[role],) for role in ("sep", "eos") if role in roles}
            flags["sep"] = (between[0] in ends and not last) or between[1:2] in [[end] for end in ends]
            stated.add("sep")
    return {f"add_{end}_token": flags[end] for end in flags if end in stated}


def _between_texts(
    pieces: tuple[Piece, ...], first: tuple[int, ...], last: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Return the tokens between a text and its pair."""
    inner = list(pieces)
    if first and inner[0].ids == first:
        del inner[0]
    if last and inner[-1].ids == last:
        del inner[-1]
    return [piece.ids for piece in inner[1:-1]]
