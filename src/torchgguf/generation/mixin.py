"""`GenerationMixin`: lets a causal language model `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, overload

import torch
from torch import Tensor

from torchgguf.generation.beams import BeamSearch
from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.decoding import Decoding
from torchgguf.generation.logits_process import Processor
from torchgguf.generation.outputs import GenerateOutput, compute_transition_scores, generate_output
from torchgguf.generation.preparation import Prepared, prepare
from torchgguf.generation.stopping import Criterion
from torchgguf.generation.streamers import BaseStreamer, Decoder, decoder_for, pieces

AllowedTokens = Callable[[int, Tensor], Sequence[int]]


class GenerationMixin:
    """Adds `generate`, `generate_stream` and `stream` to a model (see `CausalLM` for what they need of it).

    All three accept the same options:
      attention_mask: (batch, length), 0 at padding, which may be on either side of the prompts; without it
        padding is found by `pad_token_id`, unless that is an eos token too;
      generation_config, or any field of `GenerationConfig` for this call alone;
      generator: a `torch.Generator` on the model's device, for sampling that can be repeated;
      tokenizer: what `stop_strings` are looked for with;
      cache, or past_key_values: a cache that has read the first tokens of `input_ids`;
      logits_processor: callables `(input_ids, scores) -> scores`, applied before temperature and the like;
      stopping_criteria: callables `(input_ids, scores) -> (batch,) bool`, as `Criterion`;
      prefix_allowed_tokens_fn: `(number of the prompt, tokens so far) -> allowed token ids`;
      inputs_embeds: (batch, length, hidden_size), to read instead of the tokens of the prompts;
      position_ids: (batch or 1, length), of the prompts; new tokens count on;
      assistant: `"mtp"`: a block for multi-token prediction guesses the next token, which the model reads
        together with the last one. The text is the same as without, up to rounding; one prompt only;
      use_plan: record a step of decoding and replay it without Python, where that is possible: on a CPU, in
        float32, without hooks, for 16 tokens or more; the text is the same, up to rounding. None: yes, unless
        the environment states TORCHGGUF_PLAN=0;
      decoder_input_ids, decoder_attention_mask: of an encoder and a decoder, with what the decoder's texts
        begin; they are what is returned and continued. The encoder reads the prompts;
      encoder_outputs: what the encoder returned for the prompts, instead of them;
      token_type_ids: the same for models that read them; new tokens have the type of the last one.
    Other arguments of transformers are accepted where they ask for nothing, and refused by name otherwise.

    Raises:
        TypeError: an option is unknown; the message names it.
        ValueError: options contradict each other, or ask for what is not supported; a token of a prompt is
            outside the vocabulary.
    """

    config: Any
    generation_config: GenerationConfig | None = None

    @overload
    def generate(
        self,
        input_ids: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] | None = None,
        stopping_criteria: Sequence[Criterion] | None = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        *,
        return_dict_in_generate: Literal[True],
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> GenerateOutput: ...

    @overload
    def generate(
        self,
        input_ids: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] | None = None,
        stopping_criteria: Sequence[Criterion] | None = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        *,
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> Tensor: ...

    def generate(
        self,
        input_ids: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Processor] | None = None,
        stopping_criteria: Sequence[Criterion] | None = None,
        prefix_allowed_tokens_fn: AllowedTokens | None = None,
        *,
        streamer: BaseStreamer | None = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Continue each prompt.

        Args:
            input_ids: (batch, length); None starts from the bos token, or from `inputs_embeds`. Its other
                name is `inputs`.
            generation_config: see the class.
            logits_processor: see the class.
            stopping_criteria: see the class.
            prefix_allowed_tokens_fn: see the class.
            streamer: receives the prompt, then every token as it comes.
            options: see the class.

        Returns:
            Prompts and continuations, (batch, length) token ids; rows that end early are filled up with
            `pad_token_id`. From `inputs_embeds` alone, the continuations only. With
            `return_dict_in_generate`, an output that contains them.
        """
        try:
            prepared = prepare(
                self,
                input_ids,
                generation_config=generation_config,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
                **options,
            )
            if isinstance(prepared.run, BeamSearch) and streamer is None:
                return _searched(prepared, prepared.run)
            return _decoded(prepared, _streamable(prepared.run), streamer)
        finally:  # an iterator over the stream must not wait for ever
            if streamer is not None:
                streamer.end()

    def generate_stream(self, input_ids: Tensor | None = None, **options: Any) -> Iterator[Tensor]:
        """Iterate over the new token of each row, (batch,), as they come.

        A caller may stop at any point; the `cache` it passed then lacks only the last token.

        Args:
            input_ids: as in `generate`.
            options: see the class.
        """
        return _streamable(prepare(self, input_ids, **options).run).steps()

    def stream(
        self,
        input_ids: Tensor | None = None,
        *,
        tokenizer: Decoder,
        skip_special_tokens: bool = True,
        **options: Any,
    ) -> Iterator[str]:
        """Iterate over the pieces of the new text of one prompt as they come.

        Args:
            input_ids: as in `generate`, (1, length).
            tokenizer: turns tokens into text.
            skip_special_tokens: leave them out of the text.
            options: see the class.

        Raises:
            ValueError: there are several prompts.
        """
        prepared = prepare(self, input_ids, tokenizer=tokenizer, **options)
        if len(prepared.prompts) != 1:
            raise ValueError(f"stream() follows one sequence, not a batch of {len(prepared.prompts)}")
        decoder = decoder_for(tokenizer, skip_special_tokens=skip_special_tokens)
        return pieces(_streamable(prepared.run).steps(), decoder)

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: Sequence[Tensor],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """Return the score by which each new token was chosen.

        Args:
            sequences: the output's.
            scores: the output's.
            beam_indices: the output's, if it is of beam search; the scores after a text's end are then 0.
            normalize_logits: make the scores log-probabilities first.

        Returns:
            (batch, new tokens).
        """
        return compute_transition_scores(sequences, scores, beam_indices, normalize_logits)


def _decoded(prepared: Prepared, run: Decoding, streamer: BaseStreamer | None) -> Tensor | GenerateOutput:
    prompts = prepared.prompts
    if streamer is not None:
        streamer.put(prompts.cpu())
    new = []
    for token in run.steps():
        new.append(token)
        if streamer is not None:
            streamer.put(token.cpu())
    sequences = torch.cat((prompts, torch.stack(new, dim=1)), dim=1)
    if run.plan.record is None:
        return sequences
    cache, found = run.plan.context.cache, run.plan.record.fields()
    return generate_output(sequences, prepared.encoded, is_beam=False, cache=cache, **found)


def _searched(prepared: Prepared, run: BeamSearch) -> Tensor | GenerateOutput:
    best = run.search()
    sequences = torch.cat((prepared.prompts, best.tokens.flatten(0, 1)), dim=1)
    if run.plan.record is None:
        return sequences
    return generate_output(
        sequences,
        prepared.encoded,
        is_beam=True,
        sequences_scores=None if run.plan.record.scores is None else best.scores.flatten(),
        beam_indices=best.rows.flatten(0, 1).int(),
        cache=run.plan.context.cache,
        **run.plan.record.fields(),
    )


def _streamable(run: Decoding | BeamSearch) -> Decoding:
    if isinstance(run, BeamSearch):
        raise ValueError("streaming with num_beams is unsupported: which text wins shows at the end")
    return run
