"""Sessions: a loaded model and its tokenizer answer one text or a conversation."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from torchgguf.generation import GenerationConfig
from torchgguf.models import PreTrainedModel
from torchgguf.nn import DynamicCache
from torchgguf.tokenization import StreamDecoder, Tokenizer


@dataclass
class Stats:
    """The speed of an answer. The first token counts as part of the prompt, which must be read for it.

    Attributes:
        prompt_tokens: the number of tokens of the prompt that were read.
        prompt_seconds: the time until the first token.
        tokens: the number of tokens of the answer.
        seconds: the time for all tokens but the first.
        cut_off: whether the answer ended because it reached its longest length.
    """

    prompt_tokens: int
    prompt_seconds: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    cut_off: bool = False

    def __str__(self) -> str:
        """Return one line for users."""
        prompt = self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0
        rate = (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds else 0
        read = f"prompt: {self.prompt_tokens} tokens, {prompt:.0f}/s"
        end = ", cut off there" if self.cut_off else ""
        return f"[{read}; answer: {self.tokens} tokens{end}, {rate:.1f}/s]"


_CHECKPOINT_EVERY = 512  # positions; of models whose states forget what they were


class Session:
    """Answer prompts one after another; the model does not read the same beginning twice.

    Args:
        model: a model with a language head.
        tokenizer: the tokenizer of the model.
        generation_config: how to choose tokens; by default that of the model.
        max_new_tokens: the longest answer in tokens; by default the rest of the context.
        seed: the seed for sampling; by default answers differ each time.
        assistant: what guesses tokens, as in `generate`.

    Attributes:
        stats: the speed of the last answer.
    """

    stats: Stats

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        generation_config: GenerationConfig | None = None,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        assistant: str | None = None,
    ) -> None:
        self.model: Any = model
        self._assistant = assistant
        self.tokenizer = tokenizer
        self._generation_config = generation_config
        self._max_new_tokens = max_new_tokens
        self._generator = torch.Generator(model.device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._cache = DynamicCache(checkpoint_every=_CHECKPOINT_EVERY)
        self._read: list[int] = []  # the tokens whose keys and values are in the cache

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template, so that the model can hold a conversation."""
        return self.tokenizer.chat_template is not None

    def reply(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Generate the next message of a conversation, piece by piece.

        Args:
            messages: the conversation, each message with `role` and `content`.

        Yields:
            Pieces of the text.

        Raises:
            ValueError: the conversation is longer than the context, or the template rejects it.
        """
        render = partial(self.tokenizer.apply_chat_template, messages, return_dict=False)
        tokens = render(add_generation_prompt=True)
        # What the next turn repeats for certain: templates leave out earlier reasoning, or what opens it.
        lasting = _common_prefix(tokens, render(add_generation_prompt=False))
        return self._answer(tokens, StreamDecoder(self.tokenizer, skip_special_tokens=True), lasting)

    def complete(self, text: str) -> Iterator[str]:
        """Generate the continuation of a text, piece by piece.

        Args:
            text: the beginning.

        Yields:
            Pieces of the text that follows.

        Raises:
            ValueError: the text is longer than the context.
        """
        tokens = self.tokenizer.encode(text)
        return self._answer(tokens, StreamDecoder(self.tokenizer, skip_special_tokens=True, continues=True))

    @torch.inference_mode()
    def _answer(self, tokens: list[int], decoder: StreamDecoder, lasting: int = 0) -> Iterator[str]:
        # Bloom has no limit: ALiBi positions are unbounded.
        length: int = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        if len(tokens) >= length:
            raise ValueError(f"the text has {len(tokens)} tokens, but the model's context is {length}")
        known = min(_common_prefix(tokens, self._read), len(tokens) - 1)
        # What was read beyond a checkpoint, or is of no use in a text of this length, is read anew.
        known = self._cache.crop_point(known) if self._cache.holds_for(len(tokens)) else 0
        self._cache.crop(known)
        limit = min(self._max_new_tokens or length, length - len(tokens))
        told: list[int] = []
        start = first = time.perf_counter()
        try:
            self._read_ahead(tokens[:lasting])
            for token in self.model.generate_stream(
                torch.tensor([tokens]),
                cache=self._cache,
                generation_config=self._generation_config,
                max_new_tokens=limit,
                generator=self._generator,
                tokenizer=self.tokenizer,
                assistant=self._assistant,
            ):
                told.append(int(token))
                if len(told) == 1:
                    first = time.perf_counter()
                yield decoder.push(told[-1])
            yield decoder.flush()
        finally:
            # Ctrl-C came in the middle of a forward pass; in the first one, later layers have no states yet.
            is_first = known == 0 and not told
            if is_first or len({state.length for _, state in self._cache.states()}) > 1:
                self._cache.reset()
            self._read = [*tokens, *told][: self._cache.get_seq_length()]
            took = time.perf_counter() - first
            cut_off = len(told) == limit and told[-1] not in self.tokenizer.eog_token_ids
            self.stats = Stats(len(tokens) - known, first - start, len(told), took, cut_off)

    def _read_ahead(self, tokens: list[int]) -> None:
        """Read the part of a prompt that later prompts repeat, with checkpoints, if the model needs them."""
        if not getattr(self.model.base_model, "is_recurrent", False):
            return
        known = self._cache.get_seq_length()
        multiples = range(known // _CHECKPOINT_EVERY + 1, len(tokens) // _CHECKPOINT_EVERY + 1)
        for end in (*(i * _CHECKPOINT_EVERY for i in multiples), len(tokens)):
            if end > known:
                new = torch.tensor([tokens[known:end]], device=self.model.device)
                self.model(new, cache=self._cache, logits_to_keep=1)
                self._cache.checkpoint()
                known = end


def _common_prefix(left: list[int], right: list[int]) -> int:
    """Return the number of tokens that two texts share at their beginning."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
