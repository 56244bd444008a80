"""What a tokenizer puts around texts, and how that is set."""

from __future__ import annotations

from collections.abc import Sequence

from torchgguf.tokenization.encoding.lookup import TokenLookup
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.wrapping import Piece, Wrapping
from torchgguf.tokenization.vocab.vocabulary import PREFIX


class _AddsToken:
    """`tokenizer.add_bos_token` and the like: whether each text gets that token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.role = name.removeprefix("add_").removesuffix("_token")

    def __get__(self, tokenizer: Wrapper, owner: type | None = None) -> bool:
        return tokenizer._adds[self.role]

    def __set__(self, tokenizer: Wrapper, wanted: bool) -> None:
        tokenizer._adds = {**tokenizer._adds, self.role: wanted}  # copies may share it
        tokenizer._wrapping = None


class Wrapper(TokenLookup):
    """Knows the tokens around texts.

    `add_bos_token`, `add_eos_token`: whether each text is put between them; setting one replaces whatever
    else the tokenizer puts around texts.
    """

    model_max_length: int
    _adds: dict[str, bool]  # whether BOS and EOS are put around texts
    _wrapping: Wrapping | None  # what else is

    add_bos_token, add_eos_token = _AddsToken(), _AddsToken()

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

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """The ids of a text, or of a text and its pair, with those that are put around them."""
        return [i for _, ids in self._laid_out(token_ids_0, token_ids_1) for i in ids]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """What `token_type_ids` say of a text, or of a text and its pair, and what is put around them."""
        return [piece.segment for piece, ids in self._laid_out(token_ids_0, token_ids_1) for _ in ids]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for the tokens that are put around a text, or a text and its pair, 0 for theirs.

        `already_has_special_tokens`: the ids are those of a whole encoding, of which special tokens get 1.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("already_has_special_tokens=True takes one list of ids")
            return [int(i in self.vocabulary.hidden) for i in token_ids_0]
        return [int(p.text is None) for p, ids in self._laid_out(token_ids_0, token_ids_1) for _ in ids]

    @property
    def max_len_single_sentence(self) -> int:
        """The tokens that a text may have beside those put around it."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """The tokens that a text and its pair may have beside those put around them."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def _laid_out(
        self, first: Sequence[int], second: Sequence[int] | None
    ) -> list[tuple[Piece, Sequence[int]]]:
        wrapping = self.wrapping()
        texts, pieces = (first, second or ()), wrapping.single if second is None else wrapping.pair
        return [(piece, piece.ids if piece.text is None else texts[piece.text]) for piece in pieces]
