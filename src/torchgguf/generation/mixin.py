"""`GenerationMixin`: what makes a causal language model `generate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from torchgguf.generation.configuration import DEFAULT_NEW_TOKENS, GenerationConfig, resolve
from torchgguf.generation.decoding import CausalLM, Decoding, align_left
from torchgguf.generation.logits_process import Processor, processors_for, warpers_for
from torchgguf.generation.stopping import Criterion, EosTokenCriteria, StopStringCriteria
from torchgguf.generation.streamers import BaseStreamer, Decoder, decoder_for, pieces


class GenerationMixin:
    """Adds `generate`, `generate_stream` and `stream` to a model (see `CausalLM` for what they ask of it).

    All three take the same options:
      attention_mask: (batch, length), 0 at padding, which may be on either side of the prompts; without it
        padding is found by `pad_token_id`, unless that is an eos token too;
      generation_config, or any field of `GenerationConfig` for this call alone;
      generator: a `torch.Generator` on the model's device, for sampling that can be repeated;
      tokenizer: what `stop_strings` are looked for with;
      past_key_values: a cache that holds the keys and values of the first tokens of `input_ids`;
      logits_processor: callables `(input_ids, scores) -> scores`, applied before temperature and the like;
      stopping_criteria: callables `(input_ids, scores) -> (batch,) bool`.
    They raise `TypeError` that names an unknown option and `ValueError` for options that cannot go together.
    """

    config: Any
    generation_config: GenerationConfig | None = None

    def generate(
        self, input_ids: Tensor | None = None, *, streamer: BaseStreamer | None = None, **options: Any
    ) -> Tensor:
        """Continue each prompt; return prompts and continuations, (batch, length) token ids.

        input_ids: (batch, length); None starts from the bos token. Rows that end early are filled up with
        `pad_token_id`. `streamer` gets the prompt, then every token as it comes. Options: see the class.
        """
        new = []
        try:
            prompts, decoding = self._prepare(input_ids, **options)
            if streamer is not None:
                streamer.put(prompts.cpu())
            for token in decoding.steps():
                new.append(token)
                if streamer is not None:
                    streamer.put(token.cpu())
        finally:  # an iterator over the stream must not wait for ever
            if streamer is not None:
                streamer.end()
        return torch.cat((prompts, torch.stack(new, dim=1)), dim=1)

    def generate_stream(self, input_ids: Tensor | None = None, **options: Any) -> Iterator[Tensor]:
        """Like `generate`, but an iterator over the new token of each row, (batch,), as they come.

        It may be left at any point; a cache given as `past_key_values` then lacks only the last token.
        """
        return self._prepare(input_ids, **options)[1].steps()

    def stream(
        self,
        input_ids: Tensor | None = None,
        *,
        tokenizer: Decoder,
        skip_special_tokens: bool = True,
        **options: Any,
    ) -> Iterator[str]:
        """Like `generate` for one prompt, but an iterator over the pieces of the new text as they come."""
        prompts, decoding = self._prepare(input_ids, tokenizer=tokenizer, **options)
        if len(prompts) != 1:
            raise ValueError(f"stream() follows one sequence, not a batch of {len(prompts)}")
        return pieces(decoding.steps(), decoder_for(tokenizer, skip_special_tokens=skip_special_tokens))

    def _prepare(
        self,
        input_ids: Tensor | None,
        *,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        generator: torch.Generator | None = None,
        tokenizer: Decoder | None = None,
        past_key_values: Any = None,
        logits_processor: Sequence[Processor] = (),
        stopping_criteria: Sequence[Criterion] = (),
        **settings: Any,
    ) -> tuple[Tensor, Decoding]:
        """The prompts, once for each sequence asked for, and the loop that will continue them."""
        own = self.generation_config or GenerationConfig(
            eos_token_id=getattr(self.config, "eos_token_id", None),
            pad_token_id=getattr(self.config, "pad_token_id", None),
            bos_token_id=getattr(self.config, "bos_token_id", None),
        )
        config = resolve(own, generation_config, settings)
        device = getattr(self, "device", None)
        prompts = _from_bos(config) if input_ids is None else input_ids
        if prompts.dim() != 2 or prompts.shape[1] == 0:
            raise ValueError(
                f"input_ids must have shape (batch, length), length above 0, not {tuple(prompts.shape)}"
            )
        prompts = prompts.to(device)
        if attention_mask is None:
            attention_mask = _guess_mask(prompts, config)
        tokens, mask = align_left(prompts, attention_mask)
        if past_key_values is not None:
            if config.use_cache is False:
                raise ValueError("past_key_values need use_cache: without it they are of no use")
            _check_cache(past_key_values, prompts, tokens)

        batch, length = prompts.shape
        repeats = config.num_return_sequences or 1

        criteria = list(stopping_criteria)
        if config.stop_strings:
            if tokenizer is None:
                raise ValueError("stop_strings need the tokenizer: generate(..., tokenizer=tok)")
            criteria.append(StopStringCriteria(tokenizer, config.stop_strings))
        if config.eos_token_ids:
            criteria.append(EosTokenCriteria(config.eos_token_ids))

        padding = None if mask is None else (mask == 0).sum(1).repeat_interleave(repeats)
        return prompts.repeat_interleave(repeats, 0), Decoding(
            model=cast(CausalLM, self),
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=_new_tokens(config, length),
            pad_token_id=_pad_token(config, rows=batch * repeats, stops=bool(criteria)),
            processors=[*processors_for(config, length, padding), *logits_processor],
            warpers=warpers_for(config) if config.do_sample else None,
            criteria=criteria,
            generator=generator,
            cache=past_key_values,
            use_cache=config.use_cache is not False,
            prefill_chunk_size=config.prefill_chunk_size,
            repeats=repeats,
        )


def _from_bos(config: GenerationConfig) -> Tensor:
    if config.bos_token_id is None:
        raise ValueError("without input_ids the text starts from the bos token, and the model names none")
    return torch.tensor([[config.bos_token_id]])


def _guess_mask(prompts: Tensor, config: GenerationConfig) -> Tensor | None:
    """Padding tokens are padding, unless they may end a text as well."""
    pad = config.pad_token_id
    return None if pad is None or pad in config.eos_token_ids else (prompts != pad).long()


def _check_cache(cache: Any, prompts: Tensor, aligned: Tensor) -> None:
    if aligned is not prompts and not torch.equal(aligned, prompts):
        raise ValueError("prompts padded on the right cannot go with past_key_values: pad on the left")
    if cache.get_seq_length() >= prompts.shape[1]:
        raise ValueError(
            f"past_key_values hold {cache.get_seq_length()} tokens, input_ids only {prompts.shape[1]}: "
            "input_ids must be the whole text, with at least one new token"
        )


def _new_tokens(config: GenerationConfig, prompt_length: int) -> int:
    if config.max_new_tokens is not None:
        return config.max_new_tokens
    if config.max_length is None:
        return DEFAULT_NEW_TOKENS
    if config.max_length <= prompt_length:
        raise ValueError(
            f"max_length={config.max_length} leaves no room after a prompt of {prompt_length} tokens; "
            "max_new_tokens does not count the prompt"
        )
    return config.max_length - prompt_length


def _pad_token(config: GenerationConfig, rows: int, stops: bool) -> int | None:
    """What rows that have ended go on with, while others have not."""
    if rows == 1 or not stops:
        return None
    if config.pad_token_id is not None:
        return config.pad_token_id
    if not config.eos_token_ids:
        raise ValueError("rows may end at different lengths: pad_token_id must say what to fill them with")
    return config.eos_token_ids[0]
