"""`Surroundings`: the tokens that a tokenizer adds around texts."""

from __future__ import annotations

from collections.abc import Sequence

from torchgguf.tokenization.encoding.tokens import TokenTable
from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.wrapping import Piece, Wrapping
from torchgguf.tokenization.vocab.values import PREFIX


class Surroundings:
    """What is added around texts: BOS and EOS around each, or a wrapping of the tokenizer's own.

    Attributes:
        tokens: the tokens and their roles.
        adds: whether the tokens "bos" and "eos" are added around each text.
        fixed: what is added instead, None if `adds` states it. `add` sets it to None.
    """

    def __init__(self, tokens: TokenTable) -> None:
        self.tokens = tokens
        self.adds = {"bos": tokens.model.add_bos, "eos": tokens.model.add_eos}
        self.fixed = tokens.model.wrapping

    @property
    def added_ends(self) -> dict[str, bool] | None:
        """`add_bos_token` and `add_eos_token`; None if the tokenizer adds something else around texts."""
        return None if self.fixed else {f"add_{role}_token": adds for role, adds in self.adds.items()}

    def add(self, role: str, wanted: bool) -> None:
        """Set whether each text gets the token of this role, "bos" or "eos"; nothing else is added then."""
        self.adds[role] = wanted
        self.fixed = None

    def wrapping(self) -> Wrapping:
        """Return what is added around texts.

        Raises:
            TokenizerError: no token has the role of one that is to be added.
        """
        if self.fixed is not None:
            return self.fixed
        roles = self.tokens.roles
        ends: list[tuple[int, ...]] = []
        for role, wanted in self.adds.items():
            if wanted and role not in roles:
                raise TokenizerError(
                    f"each text needs a {role} token, but {PREFIX}{role}_token_id is missing: "
                    f"pass add_{role}_token=False"
                )
            ends.append((roles[role],) if wanted else ())
        return Wrapping.between(*ends)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens are added around a text, or around a text and its pair."""
        wrapping = self.wrapping()
        return sum(len(piece.ids) for piece in (wrapping.pair if pair else wrapping.single))

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return the ids of a text, or of a text and its pair, with those that are added around them."""
        return [i for _, ids in self._laid_out(token_ids_0, token_ids_1) for i in ids]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return the `token_type_ids` of a text, or of a text and its pair, and of what is added."""
        return [piece.segment for piece, ids in self._laid_out(token_ids_0, token_ids_1) for _ in ids]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for each token that is added around a text, or a text and its pair, and 0 for theirs.

        Args:
            token_ids_0: the ids of the text.
            token_ids_1: the ids of its pair.
            already_has_special_tokens: `token_ids_0` is a whole encoding, whose special tokens get 1.

        Raises:
            ValueError: a whole encoding has a pair.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("already_has_special_tokens=True needs one list of ids, got two")
            return [int(i in self.tokens.vocabulary.hidden) for i in token_ids_0]
        return [int(p.text is None) for p, ids in self._laid_out(token_ids_0, token_ids_1) for _ in ids]

    def _laid_out(
        self, first: Sequence[int], second: Sequence[int] | None
    ) -> list[tuple[Piece, Sequence[int]]]:
        wrapping = self.wrapping()
        texts, pieces = (first, second or ()), wrapping.single if second is None else wrapping.pair
        return [(piece, piece.ids if piece.text is None else texts[piece.text]) for piece in pieces]
