"""Text to token ids, in batches."""

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
from torchgguf.tokenization.encoding.rows import Cut, Rows
from torchgguf.tokenization.encoding.wrapper import Wrapper
from torchgguf.tokenization.kinds.wrapping import Wrapping
from torchgguf.tokenization.sources.source import UNLIMITED


class TextEncoder(Wrapper):
    """Encodes texts and makes batches of them.

    `padding_side` and `truncation_side`: "left" or "right".
    `model_max_length`: the tokens that a text is truncated to if nothing else is said. `model_input_names`:
    what an encoding holds if nothing else is said. `split_special_tokens`: what calls do unless they say.
    """

    padding_side: str
    truncation_side: str
    model_max_length: int
    model_input_names: tuple[str, ...]
    split_special_tokens: bool

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
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
        """Encode a text or a batch of them, each with its pair if there is one.

        `add_special_tokens`: BOS and EOS around each text, or what else the tokenizer puts there. `padding`:
        True or "longest", or "max_length". `truncation`: True or "longest_first", "only_first" or
        "only_second", to `max_length` or else `model_max_length` tokens; where nothing is padded, True if
        there is a `max_length`. `is_split_into_words`: a text is a list of words, and offsets are those in
        its words. `split_special_tokens`: take special tokens in a text for the text that they are, as is
        right for text from strangers. `return_tensors`: "pt" or "np". `return_overflowing_tokens`: what
        truncation cuts off makes more rows, each with the last `stride` tokens of the one before. `verbose`
        is there for transformers' sake: nothing is said.

        Returns `input_ids`, `attention_mask` and what is asked for of `token_type_ids` (0, or 1 for the
        pair), `special_tokens_mask` (1 for what was added), `offset_mapping` (from, to: characters of the
        text; (0, 0) for what was added), `length` (of each row) and `overflow_to_sample_mapping` (the number
        of each row's text): lists, or arrays (batch, length) or (batch,) of int64.
        """
        if not isinstance(text, Iterable):
            raise TypeError(f"a text is a str, not {type(text).__name__}")
        single = isinstance(text, str) or (is_split_into_words and not _is_pair(text, words=True))
        firsts: list[Any] = [text] if single else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if single else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts have {len(seconds)} pairs")
        elif firsts and _is_pair(firsts[0], is_split_into_words):
            if odd := [pair for pair in firsts if not isinstance(pair, list | tuple) or len(pair) != 2]:
                raise TypeError(f"the first text has its pair with it, so each needs one, but not {odd[0]!r}")
            firsts, seconds = [pair[0] for pair in firsts], [pair[1] for pair in firsts]
        columns = [firsts] if seconds is None else [firsts, seconds]

        limit = self._limit(max_length)
        if truncation is None:
            truncation = max_length is not None and padding is False
        both = {truncation, padding}.isdisjoint((False, "do_not_truncate", "do_not_pad"))
        if both and limit and pad_to_multiple_of and limit % pad_to_multiple_of:
            raise ValueError(f"max_length={limit} is no multiple of pad_to_multiple_of={pad_to_multiple_of}")
        padding_side = padding_side or self.padding_side
        wrapping = self.wrapping() if add_special_tokens else _NOTHING
        pieces = wrapping.single if seconds is None else wrapping.pair
        room = UNLIMITED if limit is None else limit - sum(len(piece.ids) for piece in pieces)
        cut = Cut(room, truncation, self.truncation_side, stride, return_overflowing_tokens)
        backend, names = self._backend(split_special_tokens), self.vocabulary.tokens

        def rows_of(offsets: bool) -> Rows:
            encoded = [_encode(backend, texts, offsets, is_split_into_words) for texts in columns]
            return Rows.of([*zip(*encoded, strict=True)], cut, pieces, names)

        def padded(rows: Rows, names: Iterable[str]) -> BatchEncoding:
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
        encoding = padded(rows, (name for name, is_asked in asked.items() if is_asked))
        if return_length:
            encoding["length"] = [len(row) for row in encoding["input_ids"]]
        if return_overflowing_tokens:
            encoding["overflow_to_sample_mapping"] = [i for i, _ in rows.kept]
        encoding.convert_to_tensors(return_tensors)
        encoding._origins = cache(lambda: padded(rows_of(offsets=True), ("input_ids", *ORIGINS)))
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
        """Pad encoded texts, given as one dict of rows or a list of dicts, and make an attention mask.

        The rows of `input_ids` are padded, and what is as long as they are; `labels` with -100. Tensors come
        back as tensors, unless `return_tensors` says otherwise. One text alone comes back alone.
        """
        if not isinstance(encoded_inputs, Mapping):
            encoded_inputs = {name: [one[name] for one in encoded_inputs] for name in encoded_inputs[0]}
        if "input_ids" not in encoded_inputs:
            raise ValueError(f"only encodings with input_ids are padded, not {', '.join(encoded_inputs)}")
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
            if self.pad_token_id is None:
                raise ValueError("the vocabulary has no padding token: set tokenizer.pad_token")
            fills = {**_FILLS, "input_ids": self.pad_token_id, "tokens": self.pad_token}
            batch = filled(batch, fills, lengths, length or 0, check_side(padding_side or self.padding_side))
        encoding = BatchEncoding(batch)
        return (encoding.only_row() if single else encoding).convert_to_tensors(return_tensors)

    def _limit(self, max_length: int | None) -> int | None:
        if max_length is None and self.model_max_length < UNLIMITED:
            return self.model_max_length
        return max_length

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """The `input_ids` of a text: a list, or with `return_tensors` an array (1, length)."""
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(
        self, text: str | Sequence[Any], text_pair: str | Sequence[Any] | None = None, **options: Any
    ) -> BatchEncoding:
        """What a call does, by the name that it had once."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """What a call does with several texts, by the name that it had once."""
        return self(batch_text_or_text_pairs, **options)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any
    ) -> list[str]:
        """The tokens of a text, as they are written in the vocabulary."""
        return self(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

    def _encode_as_text(self, text: str) -> list[int]:
        """The ids of a text that is searched for no tokens at all."""
        backend = self._model.plain_backend
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        parts = (
            [(text, ())] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(text)
        )
        return [token.id for part, _ in parts for token in backend.model.tokenize(part)]

    def _cut(
        self, rows: Sequence[list[int]], truncation: bool | str, max_length: int | None
    ) -> list[list[int]]:
        """What truncation leaves of rows that are encoded already."""
        limit, side = self._limit(max_length), self.truncation_side
        check_truncation(truncation, side)
        cut = []
        for row in rows:
            sizes = truncated([len(row)], UNLIMITED if limit is None else limit, truncation)
            ((part,),) = kept_parts([len(row)], sizes, side, 0, False)
            cut.append(row[part])
        return cut

    def _backend(self, split_special_tokens: bool | None) -> Tokenizer:
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        return self._model.plain_backend if split else self._model.backend


_NOTHING = Wrapping.between((), ())
# What padding is of each field, where it is not 0.
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
        return encode(texts, is_pretokenized=words, add_special_tokens=False)
    except TypeError:
        for text in texts:
            for part in text if words and isinstance(text, list | tuple) else [text]:
                if not isinstance(part, str):
                    raise TypeError(f"a text is a str, not {type(part).__name__}") from None
                _check_unicode(part)
        raise


def _is_pair(text: Any, words: bool) -> bool:
    """Whether a text of a batch has its pair with it."""
    return isinstance(text, list | tuple) and not (words and isinstance(next(iter(text), ""), str))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of a text is U+{ord(text[error.start]):04X}, half of a surrogate pair, "
            "which is no character: decode the text with errors='replace'"
        ) from None
