"""Text as it is generated: a decoder turns tokens into text piece by piece, streamers pass it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Queue
from typing import Any, Protocol

from torch import Tensor

from torchgguf.tokenization import StreamDecoder, Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


class Decoder(Protocol):
    """What streaming asks of a tokenizer, one of transformers' included."""

    @property
    def decode(self) -> Callable[..., str]:
        """`decode(token_ids, **options)`: the text of some tokens."""


class Detokenizer:
    """What `StreamDecoder` is, for tokenizers of which nothing is known but that they `decode`.

    (Except that a byte-fallback vocabulary, SentencePiece's, unsays a whole run of bytes when one that no
    character can have follows; what has been told then stays told.)

    A token's text depends on its neighbours: a character's bytes may be spread over several tokens, and a
    tokenizer may swallow the space before the first one. So each piece is the difference between decoding
    the last tokens with and without the new ones; a character is held back until it is complete.
    """

    def __init__(self, tokenizer: Decoder, **decode_options: Any) -> None:
        self._tokenizer = tokenizer
        self._options = decode_options
        self._window: list[int] = []  # the tokens of the last piece, and those that have yielded no text yet
        self._told = 0  # how many of them the text so far covers

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, **self._options)

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens; return the text they complete, which may be empty."""
        self._window.extend(token_ids)
        text = self._decode(self._window)
        return "" if text.endswith(UNFINISHED) else self._advance(text)

    def flush(self) -> str:
        """Return what was held back: the text ends here, in the middle of a character if need be."""
        return self._advance(self._decode(self._window))

    def _advance(self, text: str) -> str:
        piece = text[len(self._decode(self._window[: self._told])) :]
        if piece:
            self._window = self._window[self._told :]
            self._told = len(self._window)
        return piece


def decoder_for(tokenizer: Decoder, **decode_options: Any) -> StreamDecoder | Detokenizer:
    """What gives the text of tokens in pieces that add up to `tokenizer.decode(tokens, **decode_options)`."""
    if isinstance(tokenizer, Tokenizer) and decode_options.keys() <= {"skip_special_tokens"}:
        return StreamDecoder(tokenizer, **decode_options)
    return Detokenizer(tokenizer, **decode_options)


def pieces(tokens: Iterable[Tensor], decoder: StreamDecoder | Detokenizer) -> Iterator[str]:
    """The text of tokens (1,) as they come, without empty pieces."""
    for token in tokens:
        if piece := decoder.push(token.tolist()):
            yield piece
    if piece := decoder.flush():
        yield piece


class BaseStreamer:
    """What `generate(streamer=...)` talks to."""

    def put(self, value: Tensor) -> None:
        """Receive the prompt (1, length), then each new token (1,)."""
        raise NotImplementedError

    def end(self) -> None:
        """Learn that no more tokens come, because the text is complete or an exception ended it."""
        raise NotImplementedError


class TextStreamer(BaseStreamer):
    """Prints the text of a single sequence to stdout while it is generated.

    `skip_prompt`: print only what follows the prompt. `decode_options` go to the tokenizer's `decode`
    (`skip_special_tokens=True`, say). To do something else with the text, override `on_finalized_text`.
    """

    def __init__(self, tokenizer: Decoder, skip_prompt: bool = False, **decode_options: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_options = decode_options
        self._start()

    def _start(self) -> None:
        self._decoder = decoder_for(self.tokenizer, **self.decode_options)
        self._prompt_is_next = True

    def put(self, value: Tensor) -> None:
        """Print the text that these tokens complete. Raises `ValueError` for more than one sequence."""
        if value.dim() > 1 and len(value) > 1:
            raise ValueError(f"a text streamer follows one sequence, not a batch of {len(value)}")
        is_prompt, self._prompt_is_next = self._prompt_is_next, False
        if not (is_prompt and self.skip_prompt):
            self.on_finalized_text(self._decoder.push(value.flatten().tolist()))

    def end(self) -> None:
        """Print what is left and a newline."""
        rest = self._decoder.flush()
        self._start()
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the next piece of text."""
        print(text, end="\n" if stream_end else "", flush=True)


class TextIteratorStreamer(TextStreamer):
    """An iterator over the pieces of text, for a consumer in another thread than `generate`.

    `timeout`: seconds to wait for the next piece before `queue.Empty` is raised; None waits for ever.
    In a single thread `model.stream(...)` does the same with less.
    """

    def __init__(
        self,
        tokenizer: Decoder,
        skip_prompt: bool = False,
        timeout: float | None = None,
        **decode_options: Any,
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_options)
        self.timeout = timeout
        self._pieces: Queue[str | None] = Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue the next piece of text."""
        if text:
            self._pieces.put(text)
        if stream_end:
            self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        """The iterator is the streamer itself."""
        return self

    def __next__(self) -> str:
        """The next piece of text, waited for."""
        piece = self._pieces.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece
