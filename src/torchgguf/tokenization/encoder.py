"""Text to token ids, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Encoding

from torchgguf.tokenization.batch import (
    BatchEncoding,
    as_arrays,
    check_side,
    filled,
    padded_length,
    truncated,
)
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.lookup import TokenLookup
from torchgguf.tokenization.source import UNLIMITED
from torchgguf.tokenization.vocabulary import PREFIX
from torchgguf.tokenization.wrapping import Piece, Wrapping


class _AddsToken:
    """`tokenizer.add_bos_token` and the like: whether each text gets that token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removeprefix("add_").removesuffix("_token")

    def __get__(self, tokenizer: TextEncoder, owner: type | None = None) -> bool:
        return tokenizer._adds[self.role]

    def __set__(self, tokenizer: TextEncoder, wanted: bool) -> None:
        tokenizer._adds = {**tokenizer._adds, self.role: wanted}  # copies may share it
        tokenizer._wrapping = None


class TextEncoder(TokenLookup):
    """Encodes texts and makes batches of them.

    `add_bos_token`, `add_eos_token`: whether each text is put between them; setting one replaces whatever
    else the tokenizer puts around texts. `padding_side` and `truncation_side`: "left" or "right".
    `model_max_length`: the tokens that a text is truncated to if nothing else is said. `model_input_names`:
    what an encoding holds if nothing else is said. `split_special_tokens`: what calls do unless they say.
    """

    padding_side: str
    truncation_side: str
    model_max_length: int
    model_input_names: tuple[str, ...]
    split_special_tokens: bool
    _adds: dict[str, bool]  # whether BOS and EOS are put around texts
    _wrapping: Wrapping | None  # what else is

    add_bos_token, add_eos_token = _AddsToken(), _AddsToken()

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        is_split_into_words: bool = False,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        split_special_tokens: bool | None = None,
    ) -> BatchEncoding:
        """Encode a text or a batch of them, each with its pair if there is one.

        `add_special_tokens`: BOS and EOS around each text, or what else the tokenizer puts there. `padding`:
        True or "longest", or "max_length". `truncation`: True, "only_first" or "only_second", to `max_length`
        or else `model_max_length` tokens. `is_split_into_words`: a text is a list of words, and offsets are
        those in its words. `split_special_tokens`: take special tokens in a text for the text that they are,
        as is right for text from strangers. `return_tensors`: "pt" or "np".

        Returns `input_ids`, `attention_mask` and what is asked for of `token_type_ids` (0, or 1 for the
        pair), `special_tokens_mask` (1 for what was added) and `offset_mapping` (from, to: characters of the
        text; (0, 0) for what was added): lists, or arrays (batch, length) of int64. `word_ids(i)` of it says
        which word each token of a text comes from.
        """
        single = isinstance(text, str) or (is_split_into_words and not _is_pair(text, words=True))
        firsts: list[Any] = [text] if single else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if single else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts have {len(seconds)} pairs")
        elif firsts and _is_pair(firsts[0], is_split_into_words):
            firsts, seconds = [pair[0] for pair in firsts], [pair[1] for pair in firsts]

        limit = self._limit(max_length)
        wrapping = self.wrapping() if add_special_tokens else _NOTHING
        pieces = wrapping.single if seconds is None else wrapping.pair
        added = sum(len(piece.ids) for piece in pieces)
        room = UNLIMITED if limit is None else limit - added
        columns = [
            self._encode(texts, split_special_tokens, return_offsets_mapping, is_split_into_words)
            for texts in (firsts, seconds)
            if texts is not None
        ]
        texts = list(zip(*columns, strict=True))
        kept = [truncated([*map(len, parts)], room, truncation, self.truncation_side) for parts in texts]

        def field(name: str) -> list[list[Any]]:
            return [_wrapped(name, pieces, *row) for row in zip(texts, kept, strict=True)]

        def wanted(name: str, asked: bool | None) -> bool:
            return name in self.model_input_names if asked is None else asked

        asked = {
            "input_ids": True,
            "token_type_ids": wanted("token_type_ids", return_token_type_ids),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "words": is_split_into_words or return_offsets_mapping,
        }
        padded = self.pad(
            {name: field(name) for name, is_asked in asked.items() if is_asked},
            padding,
            limit,
            pad_to_multiple_of,
            padding_side,
            wanted("attention_mask", return_attention_mask),
        )
        words = padded.pop("words", None)
        encoding = BatchEncoding(as_arrays(padded, return_tensors))
        if single and return_tensors is None:
            encoding = encoding.only_row()
        encoding.words = words
        return encoding

    def pad(
        self,
        encodings: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad encoded texts, given as one dict of lists or a list of dicts, and make an attention mask."""
        if not isinstance(encodings, Mapping):
            encodings = {name: [encoding[name] for encoding in encodings] for name in encodings[0]}
        batch = {name: [list(row) for row in rows] for name, rows in encodings.items()}
        lengths = [len(row) for row in batch["input_ids"]]
        if return_attention_mask and "attention_mask" not in batch:
            batch["attention_mask"] = [[1] * length for length in lengths]
        length = padded_length(lengths, padding, self._limit(max_length), pad_to_multiple_of)
        if any(length not in (None, row) for row in lengths):
            if self.pad_token_id is None:
                raise ValueError("the vocabulary has no padding token: set tokenizer.pad_token")
            fills = {
                "input_ids": self.pad_token_id,
                "special_tokens_mask": 1,
                "offset_mapping": (0, 0),
                "words": None,
                "labels": -100,
            }
            batch = filled(batch, fills, length or 0, check_side(padding_side or self.padding_side))
        return BatchEncoding(as_arrays(batch, return_tensors))

    def _limit(self, max_length: int | None) -> int | None:
        if max_length is None and self.model_max_length < UNLIMITED:
            return self.model_max_length
        return max_length

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        """The `input_ids` of a text: a list, or with `return_tensors` an array (1, length)."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(self, text: str, *, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of a text, as they are written in the vocabulary."""
        ids = self.encode(text, add_special_tokens=add_special_tokens, **options)
        return list(self.convert_ids_to_tokens(ids))

    def _encode(
        self, texts: list[Any], split_special_tokens: bool | None, offsets: bool, words: bool
    ) -> list[Encoding]:
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        backend = self._model.plain_backend if split else self._model.backend
        encode = backend.encode_batch if offsets or words else backend.encode_batch_fast
        try:
            return encode(texts, is_pretokenized=words, add_special_tokens=False)
        except TypeError:
            for text in texts:
                for part in text if words and isinstance(text, list | tuple) else [text]:
                    if not isinstance(part, str):
                        raise TypeError(f"a text is a str, not {type(part).__name__}") from None
                    _check_unicode(part)
            raise

    @property
    def added_ends(self) -> dict[str, bool] | None:
        """`add_bos_token` and `add_eos_token`, None if the tokenizer puts something else around texts."""
        return None if self._wrapping else {f"add_{role}_token": adds for role, adds in self._adds.items()}

    def wrapping(self) -> Wrapping:
        """What is put around texts. TokenizerError if it is a token that the vocabulary does not name."""
        if self._wrapping is not None:
            return self._wrapping
        ends: list[tuple[int, ...]] = []
        for role, wanted in self._adds.items():
            if wanted and role not in self.roles:
                raise TokenizerError(
                    f"each text is to get a {role} token, but {PREFIX}{role}_token_id is missing: "
                    f"pass add_{role}_token=False"
                )
            ends.append((self.roles[role],) if wanted else ())
        return Wrapping.between(*ends)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens are put around a text, or around a text and its pair."""
        wrapping = self.wrapping()
        return sum(len(piece.ids) for piece in (wrapping.pair if pair else wrapping.single))


_NOTHING = Wrapping.between((), ())


# Each field of an encoding: its part from a text, and what it says of a token that was added.
_FIELDS: dict[str, tuple[Callable[[Encoding], list[Any]], Any]] = {
    "input_ids": (lambda text: text.ids, None),
    "token_type_ids": (lambda text: text.type_ids, None),
    "special_tokens_mask": (lambda text: [0] * len(text), 1),
    "offset_mapping": (lambda text: text.offsets, (0, 0)),
    "words": (lambda text: text.word_ids, None),
}


def _wrapped(
    name: str, pieces: Sequence[Piece], texts: Sequence[Encoding], kept: Sequence[slice]
) -> list[Any]:
    """A field of an encoding that is made of what is kept of texts' encodings, put into the pieces."""
    of_text, of_added = _FIELDS[name]
    row: list[Any] = []
    for piece in pieces:
        if piece.text is not None:
            part = of_text(texts[piece.text])[kept[piece.text]]
            row += [piece.segment] * len(part) if name == "token_type_ids" else part
        elif name == "input_ids":
            row += piece.ids
        else:
            row += [piece.segment if name == "token_type_ids" else of_added] * len(piece.ids)
    return row


def _is_pair(text: Any, words: bool) -> bool:
    """Whether a text of a batch has its pair with it."""
    return not isinstance(text, str) and not (words and isinstance(next(iter(text), ""), str))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of a text is U+{ord(text[error.start]):04X}, half of a surrogate pair, "
            "which is no character: decode the text with errors='replace'"
        ) from None
