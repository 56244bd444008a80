"""Text to token ids, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from torchgguf.tokenization.vocabulary import PREFIX

UNLIMITED = int(1e30)  # what transformers says for the length of a model whose length is not known


class TextEncoder(TokenLookup):
    """Encodes texts and makes batches of them.

    `add_bos_token`, `add_eos_token`: whether each text is put between them. `padding_side` and
    `truncation_side`: "left" or "right". `model_max_length`: the tokens that a text is truncated to if
    nothing else is said.
    """

    model_input_names = ("input_ids", "attention_mask")

    add_bos_token: bool
    add_eos_token: bool
    padding_side: str
    truncation_side: str
    model_max_length: int

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[tuple[str, str]],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool = True,
        return_offsets_mapping: bool = False,
        split_special_tokens: bool = False,
    ) -> BatchEncoding:
        """Encode a text or a batch of them, each with its pair if there is one.

        `add_special_tokens`: BOS and EOS around each text, as far as the file asks for them. `padding`: True
        or "longest", or "max_length". `truncation`: True, "only_first" or "only_second", to `max_length` or
        else `model_max_length` tokens. `split_special_tokens`: take special tokens in a text for the text
        that they are, as is right for text from strangers. `return_tensors`: "pt" or "np".

        Returns `input_ids`, `attention_mask` and, if asked for, `offset_mapping` (from, to: characters of the
        text; (0, 0) for what was added): lists, or arrays (batch, length) of int64.
        """
        single = isinstance(text, str)
        firsts: list[Any] = [text] if isinstance(text, str) else list(text)
        seconds: list[Any] | None = None
        if text_pair is not None:
            seconds = [text_pair] if isinstance(text_pair, str) else list(text_pair)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} texts have {len(seconds)} pairs")
        elif firsts and not isinstance(firsts[0], str):
            firsts, seconds = [pair[0] for pair in firsts], [pair[1] for pair in firsts]

        limit = self._limit(max_length)
        before, after = self._added_around() if add_special_tokens else ([], [])
        columns = [
            self._encode(texts, split_special_tokens, return_offsets_mapping)
            for texts in (firsts, seconds)
            if texts is not None
        ]
        batch: dict[str, list[list[Any]]] = {"input_ids": [], "offset_mapping": []}
        for parts in zip(*columns, strict=True):
            ids: list[int] = []
            offsets: list[tuple[int, int]] = []
            room = UNLIMITED if limit is None else limit - len(parts) * len(before + after)
            for part, kept in zip(
                parts, truncated([*map(len, parts)], room, truncation, self.truncation_side), strict=True
            ):
                ids += [*before, *part.ids[kept], *after]
                if return_offsets_mapping:
                    offsets += [(0, 0)] * len(before) + part.offsets[kept] + [(0, 0)] * len(after)
            batch["input_ids"].append(ids)
            batch["offset_mapping"].append(offsets)
        if not return_offsets_mapping:
            del batch["offset_mapping"]
        encoding = self.pad(
            batch, padding, limit, pad_to_multiple_of, padding_side, return_attention_mask, return_tensors
        )
        return encoding.only_row() if single and return_tensors is None else encoding

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
            fills = {"input_ids": self.pad_token_id, "offset_mapping": (0, 0), "labels": -100}
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

    def _encode(self, texts: list[str], split_special_tokens: bool, offsets: bool) -> list[Encoding]:
        backend = self._model.plain_backend if split_special_tokens else self._model.backend
        encode = backend.encode_batch if offsets else backend.encode_batch_fast
        try:
            return encode(texts, add_special_tokens=False)
        except TypeError:
            for text in texts:
                if not isinstance(text, str):
                    raise TypeError(f"a text is a str, not {type(text).__name__}") from None
                _check_unicode(text)
            raise

    def _added_around(self) -> tuple[list[int], list[int]]:
        added: list[list[int]] = []
        for wanted, role in ((self.add_bos_token, "bos"), (self.add_eos_token, "eos")):
            if wanted and role not in self.roles:
                raise TokenizerError(
                    f"each text is to get a {role} token, but {PREFIX}{role}_token_id is missing: "
                    f"pass add_{role}_token=False"
                )
            added.append([self.roles[role]] if wanted else [])
        return added[0], added[1]


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of a text is U+{ord(text[error.start]):04X}, half of a surrogate pair, "
            "which is no character: decode the text with errors='replace'"
        ) from None
