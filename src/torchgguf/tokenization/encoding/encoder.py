"""`Encoder`: texts to token ids, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import Encoding, Tokenizer

from torchgguf.tokenization.encoding.batch import (
    as_lists,
    check_side,
    check_truncation,
    filled,
    kept_parts,
    kind_of,
    padded_length,
    truncated,
)
from torchgguf.tokenization.encoding.batch_encoding import ORIGINS, BatchEncoding
from torchgguf.tokenization.encoding.rows import Cut, EncodedRows
from torchgguf.tokenization.encoding.surroundings import Surroundings
from torchgguf.tokenization.encoding.tokens import TokenTable
from torchgguf.tokenization.kinds.library import library_errors
from torchgguf.tokenization.kinds.wrapping import Wrapping
from torchgguf.tokenization.sources.source import UNLIMITED


class Encoder:
    """Encodes texts and makes batches of them.

    Attributes:
        tokens: the tokens and their roles.
        surroundings: what is added around texts.
        padding_side: where rows are padded, "left" or "right".
        truncation_side: where texts are cut off, "left" or "right".
        model_max_length: the tokens that a text is truncated to by default.
        model_input_names: the fields that an encoding has by default.
        split_special_tokens: read special tokens in texts as plain text by default.
    """

    def __init__(
        self,
        tokens: TokenTable,
        surroundings: Surroundings,
        *,
        padding_side: str,
        truncation_side: str,
        model_max_length: int,
        model_input_names: Sequence[str],
        split_special_tokens: bool,
    ) -> None:
        self.tokens = tokens
        self.surroundings = surroundings
        self.padding_side = check_side(padding_side)
        self.truncation_side = check_side(truncation_side)
        self.model_max_length = model_max_length
        self.model_input_names = tuple(model_input_names)
        self.split_special_tokens = split_special_tokens

    def __call__(
        self,
        text: str | Sequence[Any] | None = None,
        text_pair: str | Sequence[Any] | None = None,
        text_target: str | Sequence[Any] | None = None,
        text_pair_target: str | Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        is_split_into_words: bool = False,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Encode a text or a batch of texts, each with its pair if there is one.

        Args:
            text: the text, or a batch of texts. A batch may hold pairs (text, pair).
            text_pair: the pair of the text, or a batch of pairs.
            text_target: what a model is to write: its `input_ids` become `labels`. Without a text, it is the
                text.
            text_pair_target: the pair of `text_target`.
            add_special_tokens: add BOS and EOS around each text, or what else the tokenizer adds.
            padding: True or "longest": pad to the longest row; "max_length": to `max_length`.
            truncation: True or "longest_first", "only_first" or "only_second": truncate to `max_length`
                tokens, by default to `model_max_length`. By default True if there is a `max_length` and
                nothing is padded.
            max_length: the length for truncation and padding, in tokens.
            stride: how many tokens of a row the next row of an overflowing text repeats.
            padding_side: "left" or "right", by default the attribute's.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            is_split_into_words: a text is a list of words, and offsets are positions in its words.
            return_tensors: "pt" for torch tensors, "np" for NumPy arrays, by default lists.
            return_token_type_ids: return `token_type_ids`.
            return_attention_mask: return `attention_mask`.
            return_overflowing_tokens: return what truncation cuts off as further rows.
            return_special_tokens_mask: return `special_tokens_mask`.
            return_offsets_mapping: return `offset_mapping`.
            return_length: return `length`.
            split_special_tokens: read special tokens in a text as plain text, as is right for text from
                strangers. By default as the attribute states.
            verbose: accepted for compatibility with transformers; nothing is logged.

        Returns:
            `input_ids`, `attention_mask` and, as requested, `token_type_ids` (0 for the text, 1 for its
            pair), `special_tokens_mask` (1 for added tokens), `offset_mapping` (start and end in characters
            of the text; (0, 0) for added tokens), `length` (of each row) and `overflow_to_sample_mapping`
            (the number of each row's text): lists, or int64 arrays of shape (batch, length) or (batch,).

        Raises:
            TypeError: a text is not a string.
            ValueError: an argument has an unknown value or contradicts another, or rows of different
                lengths are to be a tensor.
        """
        if text_target is not None:
            options = {name: value for name, value in locals().items() if name in _OPTIONS}
            target = self(text_target, text_pair_target, **options)
            if text is None:
                return target
            encoding = self(text, text_pair, **options)
            encoding["labels"] = target["input_ids"]
            return encoding
        if not isinstance(text, Iterable):
            raise TypeError(f"a text must be a str, got a {type(text).__name__}")
        single = isinstance(text, str) or (is_split_into_words and not _is_pair(text, words=True))
        firsts: list[Any] = [text] if single else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if single else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts have {len(seconds)} pairs")
        elif firsts and _is_pair(firsts[0], is_split_into_words):
            if odd := [pair for pair in firsts if not isinstance(pair, list | tuple) or len(pair) != 2]:
                raise TypeError(f"each text must have a pair, as the first has, got {odd[0]!r}")
            firsts, seconds = [pair[0] for pair in firsts], [pair[1] for pair in firsts]
        columns = [firsts] if seconds is None else [firsts, seconds]

        limit = self._limit(max_length)
        if truncation is None:
            truncation = max_length is not None and padding is False
        both = {truncation, padding}.isdisjoint((False, "do_not_truncate", "do_not_pad"))
        if both and limit and pad_to_multiple_of and limit % pad_to_multiple_of:
            raise ValueError(
                f"max_length={limit} is not a multiple of pad_to_multiple_of={pad_to_multiple_of}"
            )
        padding_side = padding_side or self.padding_side
        wrapping = self.surroundings.wrapping() if add_special_tokens else _NOTHING
        pieces = wrapping.single if seconds is None else wrapping.pair
        room = UNLIMITED if limit is None else limit - sum(len(piece.ids) for piece in pieces)
        cut = Cut(room, truncation, self.truncation_side, stride, return_overflowing_tokens)
        backend, names = self._backend(split_special_tokens), self.tokens.vocabulary.tokens

        def rows_of(offsets: bool) -> EncodedRows:
            encoded = [_encode(backend, texts, offsets, is_split_into_words) for texts in columns]
            return EncodedRows.of([*zip(*encoded, strict=True)], cut, pieces, names)

        def padded(rows: EncodedRows, names: Iterable[str]) -> BatchEncoding:
            batch = {name: rows.field(name) for name in names}
            return self.pad(batch, padding, limit, pad_to_multiple_of, padding_side, False)

        def wanted(name: str, asked: bool | None) -> bool:
            return name in self.model_input_names if asked is None else asked

        asked = {
            "input_ids": True,
            "token_type_ids": wanted("token_type_ids", return_token_type_ids),
            "attention_mask": wanted("attention_mask", return_attention_mask),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        rows = rows_of(offsets=return_offsets_mapping)
        encoding = BatchEncoding.with_origins(
            padded(rows, (name for name, is_asked in asked.items() if is_asked)),
            cache(lambda: padded(rows_of(offsets=True), ("input_ids", *ORIGINS))),
        )
        if return_length:
            encoding["length"] = [len(row) for row in encoding["input_ids"]]
        if return_overflowing_tokens:
            encoding["overflow_to_sample_mapping"] = [i for i, _ in rows.kept]
        encoding.convert_to_tensors(return_tensors)
        if single and return_tensors is None and not return_overflowing_tokens:
            return encoding.only_row()
        return encoding

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad encoded texts, and add an attention mask.

        Rows of `input_ids` are padded, and rows of other fields that are as long; `labels` with -100.

        Args:
            encoded_inputs: one dict of rows, or a list of dicts; a single text stays single.
            padding: True or "longest": pad to the longest row; "max_length": to `max_length`.
            max_length: the length for "max_length", in tokens.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            padding_side: "left" or "right", by default the attribute's.
            return_attention_mask: add `attention_mask` if there is none.
            return_tensors: "pt" or "np", by default what the rows are.
            verbose: accepted for compatibility with transformers; nothing is logged.

        Raises:
            ValueError: there are no `input_ids`, there is no padding token, or an argument is unknown.
        """
        if not isinstance(encoded_inputs, Mapping):
            encoded_inputs = {name: [one[name] for one in encoded_inputs] for name in encoded_inputs[0]}
        if "input_ids" not in encoded_inputs:
            raise ValueError(f"padding needs input_ids, got only {', '.join(encoded_inputs)}")
        return_tensors = return_tensors or kind_of(encoded_inputs["input_ids"])
        batch = {name: as_lists(rows) for name, rows in encoded_inputs.items()}
        single = bool(batch["input_ids"]) and not isinstance(batch["input_ids"][0], list)
        if single:
            batch = {name: [row] for name, row in batch.items()}
        lengths = [len(row) for row in batch["input_ids"]]
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        if return_attention_mask and "attention_mask" not in batch:
            batch["attention_mask"] = [[1] * length for length in lengths]
        length = padded_length(lengths, padding, self._limit(max_length), pad_to_multiple_of)
        if any(length not in (None, row) for row in lengths):
            if (pad := self.tokens.roles.get("pad")) is None:
                raise ValueError("there is no padding token: set tokenizer.pad_token")
            fills = {**_FILLS, "input_ids": pad, "tokens": self.tokens.vocabulary.tokens[pad]}
            batch = filled(batch, fills, lengths, length or 0, check_side(padding_side or self.padding_side))
        encoding = BatchEncoding(batch)
        return (encoding.only_row() if single else encoding).convert_to_tensors(return_tensors)

    def encode(self, /, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """Return the `input_ids` of a text: a list, or with `return_tensors` an array (1, length).

        Args:
            text: the text.
            text_pair: its pair.
            options: those of a call.
        """
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(
        self, /, text: str | Sequence[Any], text_pair: str | Sequence[Any] | None = None, **options: Any
    ) -> BatchEncoding:
        """Encode a text: the deprecated name of a call.

        Args:
            text: the text.
            text_pair: its pair.
            options: those of a call.
        """
        return self(text, text_pair, **options)

    def batch_encode_plus(self, /, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """Encode several texts: the deprecated name of a call.

        Args:
            batch_text_or_text_pairs: the texts, or pairs of them.
            options: those of a call.
        """
        return self(batch_text_or_text_pairs, **options)

    def tokenize(
        self, /, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """Return the tokens of a text as the vocabulary spells them.

        Args:
            text: the text.
            pair: its pair.
            add_special_tokens: add BOS and EOS, or what else the tokenizer adds.
            options: those of a call.
        """
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def encode_plain(self, text: str) -> list[int]:
        """Return the ids of a text that is searched for no special or added tokens."""
        backend = self.tokens.model.plain_backend
        with library_errors(_REFUSES):
            if backend.normalizer is not None:
                text = backend.normalizer.normalize_str(text)
            splitter = backend.pre_tokenizer
            parts = [(text, ())] if splitter is None else splitter.pre_tokenize_str(text)
            return [token.id for part, _ in parts for token in backend.model.tokenize(part)]

    def truncate(
        self, rows: Sequence[list[int]], truncation: bool | str, max_length: int | None
    ) -> list[list[int]]:
        """Return what truncation keeps of rows of ids; the arguments are those of a call.

        Raises:
            ValueError: an argument has an unknown value.
        """
        limit, side = self._limit(max_length), self.truncation_side
        check_truncation(truncation, side)
        cut = []
        for row in rows:
            sizes = truncated([len(row)], UNLIMITED if limit is None else limit, truncation)
            ((part,),) = kept_parts([len(row)], sizes, side, 0, False)
            cut.append(row[part])
        return cut

    @property
    def max_len_single_sentence(self) -> int:
        """The tokens that a text may have besides those that are added around it."""
        return self.model_max_length - self.surroundings.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """The tokens that a text and its pair may have besides those that are added around them."""
        return self.model_max_length - self.surroundings.num_special_tokens_to_add(pair=True)

    def _limit(self, max_length: int | None) -> int | None:
        if max_length is None and self.model_max_length < UNLIMITED:
            return self.model_max_length
        return max_length

    def _backend(self, split_special_tokens: bool | None) -> Tokenizer:
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        return self.tokens.model.plain_backend if split else self.tokens.model.backend


_OPTIONS = frozenset(Encoder.__call__.__kwdefaults__ or ())
_REFUSES = "the tokenizer does not encode this text"
_NOTHING = Wrapping.between((), ())
# The padding of each field, where it is not 0.
_FILLS = {
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
    "words": None,
    "sequence_ids": None,
    "labels": -100,
}


def _encode(backend: Tokenizer, texts: list[Any], offsets: bool, words: bool) -> list[Encoding]:
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    try:
        with library_errors(_REFUSES):
            return encode(texts, is_pretokenized=words, add_special_tokens=False)
    except TypeError:
        for text in texts:
            for part in text if words and isinstance(text, list | tuple) else [text]:
                if not isinstance(part, str):
                    raise TypeError(f"a text must be a str, got a {type(part).__name__}") from None
                _check_unicode(part)
        raise


def _is_pair(text: Any, words: bool) -> bool:
    """Return whether an entry of a batch is a text with its pair."""
    return isinstance(text, list | tuple) and not (words and isinstance(next(iter(text), ""), str))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of a text is U+{ord(text[error.start]):04X}, half of a surrogate pair, "
            "which is invalid: decode the text with errors='replace'"
        ) from None
