"""`FileSource`: tokenizers from Hugging Face's files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from gguf.constants import TokenType
from tokenizers import AddedToken, Tokenizer

from torchgguf.container import Metadata
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.bpe import spell_byte_level
from torchgguf.tokenization.kinds.library import check_added, library_errors
from torchgguf.tokenization.kinds.model import TokenizerModel
from torchgguf.tokenization.kinds.parts import SPACE, spell_sentencepiece
from torchgguf.tokenization.kinds.wordpiece import spell_wordpiece
from torchgguf.tokenization.kinds.wrapping import flags_of, pipeline_state, pipeline_steps, read_wrapping
from torchgguf.tokenization.sources.declared import ROLES, Declarations, class_name, class_of
from torchgguf.tokenization.sources.files import PIPELINE, TOKENIZER_CONFIG, TokenizerFiles
from torchgguf.tokenization.sources.gguf_metadata import write_metadata
from torchgguf.tokenization.sources.inspection import check_pipeline, check_pipeline_text, check_wrapping
from torchgguf.tokenization.sources.source import MOST_GAPS, UNLIMITED, Defaults, warn_of_rowless
from torchgguf.tokenization.vocab.vocabulary import Vocabulary, settle_types

_NO_MERGES = re.compile(r'"merges"\s*:\s*\[\s*\]')


def stated_setting(config: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return an entry of tokenizer_config.json, or the default if it is missing.

    Args:
        config: the entries.
        name: the entry's name.
        kind: the type that the entry must have.
        default: the default.

    Raises:
        TokenizerError: the entry is of another type.
    """
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TokenizerError(f"{TOKENIZER_CONFIG}: {name} must be of the type {kind.__name__}, got {value!r}")
    return value


def read_defaults(files: TokenizerFiles) -> Defaults:
    """Return the defaults of a tokenizer's attributes that its files state.

    Raises:
        TokenizerError: an entry is of a wrong type.
    """
    stated, defaults = partial(stated_setting, files.config), class_of(files)
    return Defaults(
        files.templates,
        stated("padding_side", str, defaults.padding_side),
        stated("truncation_side", str, "right"),
        min(stated("model_max_length", int, UNLIMITED), UNLIMITED),
        tuple(stated("model_input_names", list, defaults.inputs)),
        stated("clean_up_tokenization_spaces", bool, False),
        stated("split_special_tokens", bool, False),
    )


@dataclass(frozen=True)
class FileSource:
    """Hugging Face's files, with `pipeline` among them.

    Attributes:
        files: the files.
        pre: GGUF's name for the rule by which texts are split, if it is not to be found by trying.
        special: the tokens by role that replace those of the files.
        add_prefix_space: whether a space is added before texts, in place of what the files state.
        made: the pipeline was built because there is no tokenizer.json, so that tokenizer_config.json states
            what is added around texts.
        more: tokens that were added to those of the files.
        place: empty, as warnings name one of the files.
    """

    files: TokenizerFiles
    pre: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    add_prefix_space: bool | None = None
    made: bool = False
    more: tuple[AddedToken, ...] = ()
    place: str = ""

    @property
    def defaults(self) -> Defaults:
        """The defaults of the tokenizer's attributes that the files state."""
        return read_defaults(self.files)

    @property
    def config(self) -> Mapping[str, Any]:
        """The entries of tokenizer_config.json."""
        prefix = {} if self.add_prefix_space is None else {"add_prefix_space": self.add_prefix_space}
        return {**self.files.config, **prefix}

    def with_tokens(self, tokens: Sequence[AddedToken]) -> FileSource:
        """Return this source with more tokens."""
        return replace(self, more=(*self.more, *tokens))

    def metadata(self, model: TokenizerModel, vocab_size: int | None) -> Metadata:
        """Return what llama.cpp's converter writes. Raise TokenizerError if GGUF does not support it."""
        files = replace(self.files, config=self.config)
        size = len(model.vocabulary.tokens) if vocab_size is None else vocab_size
        rowless = range(size, len(model.vocabulary.tokens))
        if rowless and not self.more and model.backend.get_added_tokens_decoder().keys() >= {*rowless}:
            check_wrapping(model.wrapping, size)
            warn_of_rowless(PIPELINE, model.vocabulary.tokens[size:], size)
            model = replace(model, vocabulary=model.vocabulary.up_to(size))
        return write_metadata(files, self.special, model, self.pre, vocab_size)

    def read(self) -> TokenizerModel:
        """Build the tokenizer that tokenizer.json and the files beside it describe."""
        declared = Declarations(self.files, self.special)
        with library_errors(f"{PIPELINE} is invalid", building=True):
            backend = self._backend(declared)
            check_pipeline(backend)
            vocabulary = _vocabulary(backend, declared)
            spell, drops_space = _spelling(backend)
            wrapping = read_wrapping(pipeline_state(backend.post_processor))
        check_wrapping(wrapping, len(vocabulary.tokens))
        if (merges := _NO_MERGES.search(self.files.pipeline or "")) and len(vocabulary.ids) > 1:
            note = f"{PIPELINE}: {merges[0]}: no tokens are joined, so that texts become single characters"
            vocabulary = replace(vocabulary, notes=(*vocabulary.notes, note))
        flags = {
            end: self.made and stated_setting(self.config, f"add_{end}_token", bool, False)
            for end in ("bos", "eos")
        }
        if wrapping is not None and (as_flags := flags_of(wrapping, vocabulary.roles)):
            wrapping, flags = None, as_flags
        return TokenizerModel(
            vocabulary,
            backend,
            partial(_blind_to_special, backend),
            spell,
            flags["bos"],
            flags["eos"],
            drops_space,
            wrapping,
            spell if spell is spell_wordpiece else str.encode,
        )

    def _backend(self, declared: Declarations) -> Tokenizer:
        check_pipeline_text(self.files.pipeline or "")
        backend = Tokenizer.from_str(self.files.pipeline or "")
        backend.no_padding()
        backend.no_truncation()
        prefix = stated_setting(self.config, "add_prefix_space", bool)
        counts = self.add_prefix_space is not None or class_name(self.files) == "GPT2Tokenizer"
        if counts and prefix is not None and not _set_prefix_space(backend.pre_tokenizer, prefix):
            raise TokenizerError(f"{PIPELINE} does not support add_prefix_space={prefix}")
        known = _texts(backend)
        others = list(declared.other_tokens(known).values())
        special = declared.special_tokens
        check_added(TOKENIZER_CONFIG, [*known, *(token.content for token in (*others, *special, *self.more))])
        backend.add_tokens(others)
        known = _texts(backend)
        backend.add_tokens([token for token in special if token.content not in known])
        backend.add_tokens(list(self.more))
        return backend


def _texts(backend: Tokenizer) -> set[str]:
    return {token.content for token in backend.get_added_tokens_decoder().values()}


def _set_prefix_space(part: Any, wanted: bool) -> bool:
    """Set whether a space is added before texts; return whether a step of this part does that."""
    match type(part).__name__:
        case "Sequence":
            return True in [_set_prefix_space(step, wanted) for step in part]
        case "ByteLevel":
            part.add_prefix_space = wanted
        case "Metaspace":
            part.prepend_scheme = "first" if wanted else "never"
        case _:
            return False
    return True


def _blind_to_special(backend: Tokenizer) -> Tokenizer:
    """Return the same tokenizer, but reading special tokens as plain text."""
    blind = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if (value := getattr(backend, part)) is not None:
            setattr(blind, part, value)
    blind.add_tokens([token for _, token in sorted(backend.get_added_tokens_decoder().items())])
    blind.encode_special_tokens = True
    return blind


def number_of_ids(ids: Mapping[str, int]) -> int:
    """Return one more than the highest id.

    Raises:
        TokenizerError: there are no tokens, or far more ids than tokens.
    """
    size = max(ids.values(), default=-1) + 1
    if not ids or size - len(ids) > MOST_GAPS:
        raise TokenizerError(f"the vocabulary has {len(ids)} tokens, whose ids go up to {size - 1}")
    return size


def _vocabulary(backend: Tokenizer, declared: Declarations) -> Vocabulary:
    ids = backend.get_vocab()
    size = number_of_ids(ids)
    tokens = [f"[PAD{i}]" for i in range(size)] if size > len(ids) else [""] * size
    for token, i in ids.items():
        tokens[i] = token
    added = backend.get_added_tokens_decoder()
    special = {i: TokenType.CONTROL if t.special else TokenType.USER_DEFINED for i, t in added.items()}
    roles = {role: ids[token.content] for role, token in declared.roles.items() if role in ROLES}
    hexadecimal = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
    falls_back = getattr(backend.model, "byte_fallback", False)
    purposes = {tokens[i]: i for i in special} | {tokens[i]: i for i in roles.values()}
    ends = settle_types(purposes, tokens, dict(special), roles)
    return Vocabulary(
        tokens=tokens,
        ids=ids,
        special=special,
        bytes_={ids[text]: byte for text, byte in hexadecimal.items() if falls_back and text in ids},
        roles=roles,
        ends=ends,
        lstrip=frozenset(),
        rstrip=frozenset(),
        scores=None,
        merges=None,
        unused=frozenset(range(size)).difference(ids.values()) if size > len(ids) else frozenset(),
        added=len(ids) - backend.get_vocab_size(with_added_tokens=False),
    )


def _spelling(backend: Tokenizer) -> tuple[Callable[[str], bytes], bool]:
    """Return what spells tokens, and whether decoding removes the space before a text."""
    decoders = {step["type"]: step for step in pipeline_steps(pipeline_state(backend.decoder), "decoders")}
    if "ByteLevel" in decoders:
        return spell_byte_level, False
    if (metaspace := decoders.get("Metaspace")) and metaspace["replacement"] == SPACE:
        return spell_sentencepiece, metaspace["prepend_scheme"] != "never"
    if decoders.get("Replace", {}).get("pattern") == {"String": SPACE}:
        strip = decoders.get("Strip", {})
        return spell_sentencepiece, strip.get("content") == " " and strip.get("start", 0) > 0
    wordpiece = decoders.get("WordPiece", {})
    if wordpiece.get("prefix") == "##" and wordpiece["cleanup"]:
        return spell_wordpiece, True
    raise TokenizerError(
        f"{PIPELINE}: decoders like {', '.join(decoders) or 'none'} are unsupported, except those of "
        "byte-level BPE, SentencePiece and BERT"
    )
