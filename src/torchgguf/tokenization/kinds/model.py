"""`TokenizerModel`: what a source is read into, whatever the kind of its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

from torchgguf.tokenization.kinds.wrapping import Wrapping
from torchgguf.tokenization.vocab.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerModel:
    """A vocabulary with all that turns text into its ids, and ids into bytes. Nothing in it changes.

    Neither backend adds tokens around texts: `add_bos` and `add_eos` state which are added, or else
    `wrapping` does.

    Attributes:
        vocabulary: the tokens.
        backend: the `tokenizers` library's tokenizer, which finds special tokens in texts.
        make_plain: builds `plain_backend`.
        spell: returns the bytes that an ordinary token stands for.
        add_bos: whether BOS is added before each text.
        add_eos: whether EOS is added after each text.
        add_space_prefix: whether a space is added before each stretch of text; decoding removes the first.
        wrapping: what is added around texts, if it is more than BOS and EOS around each.
        spell_special: returns the bytes of a token that texts are searched for.
    """

    vocabulary: Vocabulary
    backend: Tokenizer
    make_plain: Callable[[], Tokenizer]
    spell: Callable[[str], bytes]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    wrapping: Wrapping | None = None
    spell_special: Callable[[str], bytes] = str.encode

    @cached_property
    def plain_backend(self) -> Tokenizer:
        """The backend that reads special tokens in texts as plain text; built at first use."""
        return self.make_plain()

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        """The bytes of the tokens that have been spelled so far, by id."""
        return {}

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for: nothing for unused ones and ids beyond the vocabulary.

        A model may have more embeddings than its tokenizer has tokens, and its answer such an id.

        Raises:
            ValueError: the id is negative.
        """
        piece = self.pieces.get(token_id)
        if piece is None:
            if token_id < 0:
                raise ValueError(f"{token_id} is not a token id: it is negative")
            if token_id >= len(self.vocabulary.tokens):
                return b""
            token = self.vocabulary.tokens[token_id]
            if token_id in self.vocabulary.unused:
                piece = b""
            elif token_id in self.vocabulary.special:
                piece = self.spell_special(token)
            else:
                piece = self.vocabulary.bytes_.get(token_id) or self.spell(token)
            self.pieces[token_id] = piece
        return piece
