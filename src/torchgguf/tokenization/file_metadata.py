"""Hugging Face's files as metadata of a GGUF file: the keys and values of llama.cpp's converter.

Sources: `conversion/base.py` (`_set_vocab_gpt2`, `_set_vocab_sentencepiece`, `_set_vocab_llama_hf`) and
`gguf-py/gguf/vocab.py` (`SpecialVocab`). Where others would make something else of what it writes than the
tokenizer does, this is true to the tokenizer:

- A SentencePiece vocabulary whose tokenizer.model is not there gets scores by the order of its merges. The
  converter gives all tokens the same, by which a reader joins others than the tokenizer does.
- Tokens to search texts for are marked so, wherever they are declared.
- Whether BOS and EOS are added is said wherever a reader would presume otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from gguf.constants import TokenType
from tokenizers import models

from torchgguf.container import Metadata
from torchgguf.tokenization.bpe import spell_byte_level
from torchgguf.tokenization.chat import templates_metadata
from torchgguf.tokenization.declared import ROLES, Declarations
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.files import TokenizerFiles
from torchgguf.tokenization.models import TokenizerModel, presumed_flags
from torchgguf.tokenization.parts import SPACE
from torchgguf.tokenization.rule_of import name_of_rule
from torchgguf.tokenization.sentencepiece import read_sentencepiece
from torchgguf.tokenization.source import TYPES, checked_size, padding_tokens
from torchgguf.tokenization.special_tokens import ROLE_KEYS
from torchgguf.tokenization.vocabulary import PREFIX
from torchgguf.tokenization.wrapping import Piece, flags_of, read_wrapping, state, steps

_PADDING_SCORE, _ADDED_SCORE = -10000.0, -1000.0
# Added tokens that are control tokens even where a tokenizer does not say so.
_CONTROL_TEXTS = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})
_CONTROL_ENDS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_REFUSED = "a GGUF file cannot say what this tokenizer does: "


def write_metadata(
    files: TokenizerFiles,
    special: Mapping[str, str],
    model: TokenizerModel,
    pre: str | None,
    vocab_size: int | None,
) -> Metadata:
    """The keys `tokenizer.*` for a tokenizer out of files; `special` are tokens by role beside theirs.

    `pre`: the name of its splitting rule, if it is not to be looked for. TokenizerError if GGUF has no words
    for what the tokenizer does, or no rule is known that splits texts as it does.
    """
    stated = files.model.get("vocab_size")
    tokens = len(model.vocabulary.tokens)
    if vocab_size is None and isinstance(stated, int) and stated > tokens:
        vocab_size = stated
    size = checked_size(tokens, vocab_size)
    byte_level = model.spell is spell_byte_level
    if not isinstance(bpe := model.backend.model, models.BPE) or not (byte_level or bpe.byte_fallback):
        raise TokenizerError(f"{_REFUSED}only byte-level BPE, and SentencePiece's with bytes, are supported")
    if byte_level:
        kind, name = "gpt2", pre or _rule(model)
        lists = _byte_level_lists(model, size)
    else:
        kind, name = "llama", "default"
        lists = _sentencepiece_lists(files, model, size)
    values: dict[str, Any] = {"model": kind, "pre": name, **lists}
    if isinstance(prefix := files.config.get("add_prefix_space"), bool) and not byte_level:
        values["add_space_prefix"] = prefix  # of which no reader takes any notice for byte-level BPE
    roles = _roles(files, special, model)
    values |= {ROLE_KEYS[role][0]: i for role, i in roles.items()}
    values |= _flags(files, model, roles, presumed_flags(kind, name))
    metadata = Metadata({PREFIX + key: value for key, value in values.items()}, TYPES)
    metadata.update(templates_metadata(files.templates))
    return metadata


def _rule(model: TokenizerModel) -> str:
    normalizers = {step["type"] for step in steps(state(model.backend.normalizer), "normalizers")}
    odd = {f"the normalizer {name}" for name in normalizers - {"NFC"}}  # composed texts are the rule
    splits = steps(state(model.backend.pre_tokenizer), "pretokenizers")
    odd |= {"add_prefix_space=True" for step in splits if step.get("add_prefix_space")}
    if odd:
        raise TokenizerError(f"{_REFUSED}{' and '.join(sorted(odd))}; from_pretrained(pre=...) leaves it out")
    return name_of_rule(model.backend, model.add_bos)


def _byte_level_lists(model: TokenizerModel, size: int) -> dict[str, list[Any]]:
    vocabulary = model.vocabulary
    tokens = vocabulary.tokens + padding_tokens(len(vocabulary.tokens), size)
    types = [
        TokenType.UNUSED
        if token.startswith("[PAD") and [token] == padding_tokens(i, i + 1)
        else TokenType.NORMAL
        for i, token in enumerate(tokens)
    ]
    for i in vocabulary.special:
        tokens[i], types[i] = _added(tokens[i], vocabulary.special[i])
    return {"tokens": tokens, "token_type": [int(t) for t in types], "merges": _merges(model)}


def _added(token: str, kind: TokenType) -> tuple[str, TokenType]:
    """How an added token is written, and its type."""
    looks_special = token in _CONTROL_TEXTS or any(
        token.startswith(start) and token.endswith(end) for start, end in _CONTROL_ENDS
    )
    if kind is TokenType.CONTROL or looks_special:
        return token, TokenType.CONTROL
    return token.replace(SPACE, " "), TokenType.USER_DEFINED


def _merges(model: TokenizerModel) -> list[str]:
    """The merges in their order, a space inside of a token written as byte-level BPE writes it."""
    pairs = json.loads(model.backend.model.__getstate__())["merges"]
    return [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in pairs]


def _sentencepiece_lists(files: TokenizerFiles, model: TokenizerModel, size: int) -> dict[str, list[Any]]:
    vocabulary = model.vocabulary
    if files.pieces is not None:
        pieces = read_sentencepiece(files.pieces)
        scores, types = pieces.scores, pieces.types
    else:
        scores = _scores(model)
        types = [TokenType.BYTE if i in vocabulary.bytes_ else TokenType.NORMAL for i in range(len(scores))]
    declared = (files.config.get("added_tokens_decoder") or {}).keys()
    return piece_lists(vocabulary.tokens, scores, types, vocabulary.special, set(map(int, declared)), size)


def piece_lists(
    tokens: list[str],
    scores: list[float],
    types: list[TokenType],
    added: Mapping[int, TokenType],
    declared: Collection[int],
    size: int,
) -> dict[str, list[Any]]:
    """The lists of a SentencePiece vocabulary, each of `size` entries.

    `scores` and `types` are the model's own. `added`: the types of tokens that were added, or that the model
    has and that texts are searched for; these keep theirs unless they are `declared`.
    """
    tokens = tokens + padding_tokens(len(tokens), size)
    scores = scores + [_PADDING_SCORE] * (size - len(scores))
    types = types + [TokenType.UNUSED] * (size - len(types))
    for i, kind in added.items():
        if i in declared or types[i] not in (TokenType.UNKNOWN, TokenType.CONTROL):
            tokens[i], types[i] = _added(tokens[i], kind)
            scores[i] = _ADDED_SCORE
    return {"tokens": tokens, "scores": scores, "token_type": [int(t) for t in types]}


def _scores(model: TokenizerModel) -> list[float]:
    """Scores by which SentencePiece joins what the merges join: the earlier one makes a token, the higher."""
    scores = dict.fromkeys(range(model.backend.get_vocab_size(with_added_tokens=False)), 0.0)
    pairs = json.loads(model.backend.model.__getstate__())["merges"]
    made = dict.fromkeys(model.vocabulary.ids["".join(pair)] for pair in pairs)
    scores |= {i: float(-rank) for rank, i in enumerate(made)}
    return list(scores.values())


def _roles(files: TokenizerFiles, special: Mapping[str, str], model: TokenizerModel) -> dict[str, int]:
    """The tokens with roles: as the tokenizer's files say, else the model's, else as its class implies."""
    known = model.vocabulary.roles
    stated = Declarations(files, special).stated_roles
    implied = {role: known[role] for role in ("bos", "eos") if role in known}
    by_files = {role: known[role] for role in ROLES if role in known and role in stated}
    return implied | model_roles(files) | by_files


def model_roles(files: TokenizerFiles) -> dict[str, int]:
    """The ids of tokens with roles as the model's config.json says them."""
    return {role: i for role in ROLES if type(i := files.model.get(f"{role}_token_id")) is int}


def _flags(
    files: TokenizerFiles, model: TokenizerModel, roles: dict[str, int], presumed: Mapping[str, bool]
) -> dict[str, bool]:
    """The flags that the converter writes, and those without which a reader would do something else."""
    flags: dict[str, bool] | None = {"bos": model.add_bos, "eos": model.add_eos}
    if model.wrapping is not None:
        flags = flags_of(model.wrapping, model.vocabulary.roles, single_only=True)
    if flags is None:
        raise TokenizerError(
            f"{_REFUSED}it puts more around texts than BOS and EOS; tokenizer.add_bos_token changes that"
        )
    said = {end for end, adds in flags.items() if adds != presumed[end]}
    said |= {end for end in flags if isinstance(files.config.get(f"add_{end}_token"), bool)}
    processor = state(model.backend.post_processor)
    if any(step["type"] == "ByteLevel" for step in steps(processor, "processors")):
        said |= flags.keys()
    if (wrapping := read_wrapping(processor)) is not None:
        first, last = wrapping.single[0].ids, wrapping.single[-1].ids
        said |= {end for end, ids in (("bos", first), ("eos", last)) if ids}
        between = _between_texts(wrapping.pair, first, last)
        if between:
            ends = {(roles[role],) for role in ("sep", "eos") if role in roles}
            flags["sep"] = (between[0] in ends and not last) or between[1:2] in [[end] for end in ends]
            said.add("sep")
    return {f"add_{end}_token": flags[end] for end in flags if end in said}


def _between_texts(
    pieces: tuple[Piece, ...], first: tuple[int, ...], last: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """What a pair of texts has between them."""
    inner = list(pieces)
    if first and inner[0].ids == first:
        del inner[0]
    if last and inner[-1].ids == last:
        del inner[-1]
    return [piece.ids for piece in inner[1:-1]]
