"""Streamers: they receive tokens as they are generated, and print or queue the text piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from queue import Queue
from typing import Any, Protocol

from torch import Tensor

from torchgguf.tokenization import StreamDecoder, Tokenizer

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


class Decoder(Protocol):
    """What streaming needs of a tokenizer, here or of transformers."""

    @property
    def decode(self) -> Callable[..., str]:
        """`decode(token_ids, **options)`: the text of some tokens."""


class Detokenizer:
    """Does what `StreamDecoder` does for any tokenizer that can `decode`.

    There is one difference. In a vocabulary with byte fallback (SentencePiece's), an invalid byte changes the
    text of the whole run of bytes before it; what has been returned of it stays as it is.

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
        """Return the rest: the text ends here, even in the middle of a character."""
        return self._advance(self._decode(self._window))

    def _advance(self, text: str) -> str:
        piece = text[len(self._decode(self._window[: self._told])) :]
        if piece:
            self._window = self._window[self._told :]
            self._told = len(self._window)
        return piece


def decoder_for(tokenizer: Decoder, **decode_options: Any) -> StreamDecoder | Detokenizer:
    """Return a decoder whose pieces add up to `tokenizer.decode(tokens, **decode_options)`."""
    if isinstance(tokenizer, Tokenizer) and decode_options.keys() <= {"skip_special_tokens"}:
        return StreamDecoder(tokenizer, **decode_options)
    return Detokenizer(tokenizer, **decode_options)


def pieces(tokens: Iterable[Tensor], decoder: StreamDecoder | Detokenizer) -> Iterator[str]:
    """Iterate over the text of tokens (1,) as they come, without empty pieces."""
    for token in tokens:
        if piece := decoder.push(token.tolist()):
            yield piece
    if piece := decoder.flush():
        yield piece


class BaseStreamer:
    """What `generate(streamer=...)` calls."""

    def put(self, value: Tensor) -> None:
        """Receive the prompt (1, length), then each new token (1,)."""
        raise NotImplementedError

    def end(self) -> None:
        """End: no more tokens come, because the text is complete or an exception ended it."""
        raise NotImplementedError


class TextStreamer(BaseStreamer):
    """Prints the text of a single sequence to stdout while it is generated.

    To do something else with the text, override `on_finalized_text`.

    Args:
        tokenizer: turns tokens into text.
        skip_prompt: print only what follows the prompt.
        decode_options: of the tokenizer's `decode`, such as `skip_special_tokens=True`.
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
        """Print the text that these tokens complete.

        Raises:
            ValueError: there is more than one sequence.
        """
        if value.dim() > 1 and len(value) > 1:
            raise ValueError(f"a text streamer follows one sequence, not a batch of {len(value)}")
        is_prompt, self._prompt_is_next = self._prompt_is_next, False
        if not (is_prompt and self.skip_prompt):
            self.on_finalized_text(self._decoder.push(value.flatten().tolist()))

    def end(self) -> None:
        """Print the rest and a newline."""
        rest = self._decoder.flush()
        self._start()
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print the next piece of text."""
        print(text, end="\n" if stream_end else "", flush=True)


class TextIteratorStreamer(TextStreamer):
    """An iterator over the pieces of text, for a consumer in another thread than `generate`.

    In a single thread `model.stream(...)` is simpler.

    Args:
        tokenizer: as in `TextStreamer`.
        skip_prompt: as in `TextStreamer`.
        timeout: seconds to wait for the next piece, then `queue.Empty` is raised; None: wait for ever.
        decode_options: as in `TextStreamer`.
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
        self.text_queue: Queue[str | None] = Queue()
        self.stop_signal = None

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue the next piece of text."""
        if text:
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(self.stop_signal)

    def __iter__(self) -> Iterator[str]:
        """Return the streamer itself."""
        return self

    def __next__(self) -> str:
        """Wait for the next piece of text."""
        piece = self.text_queue.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        return piece


class AsyncTextIteratorStreamer(TextStreamer):
    """An asynchronous iterator over the pieces of text, while `generate` runs in another thread.

    It must be made inside a coroutine: the pieces go to the event loop that runs then.

    Args:
        tokenizer: as in `TextStreamer`.
        skip_prompt: as in `TextStreamer`.
        timeout: seconds to wait for the next piece, then `TimeoutError` is raised; None: wait for ever.
        decode_options: as in `TextStreamer`.
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
        self.text_queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.stop_signal = None
        self.loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Queue the next piece of text."""
        for piece in (*([text] if text else []), *([self.stop_signal] if stream_end else [])):
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, piece)

    def __aiter__(self) -> AsyncIterator[str]:
        """Return the streamer itself."""
        return self

    async def __anext__(self) -> str:
        """Wait for the next piece of text."""
        async with asyncio.timeout(self.timeout):
            piece = await self.text_queue.get()
        if piece is None:
            raise StopAsyncIteration
        return piece
