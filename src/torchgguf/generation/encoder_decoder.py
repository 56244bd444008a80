"""Generation by an encoder and a decoder: the decoder continues a text of its own.

The encoder reads the prompts once. From then on the decoder, with what the encoder returned, is a `CausalLM`
as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.configuration import GenerationConfig
from torchgguf.generation.context import Context
from torchgguf.generation.prompts import guess_mask, read_prompts


@dataclass(frozen=True)
class DecoderOutput:
    """What a decoder returned: names are those that `Context` reads."""

    logits: Tensor
    cache: Any
    hidden_states: Any
    attentions: Any
    cross_attentions: Any


@dataclass(frozen=True)
class DecoderOf:
    """A `CausalLM` made of a model's decoder and of what its encoder returned.

    Attributes:
        model: the whole model.
        encoded: the encoder's output; its first value is `(batch, length, hidden_size)`.
        mask: `(batch, length)`, 0 at padding of the encoder's texts; None: there is no padding.
    """

    model: Any
    encoded: Any
    mask: Tensor | None

    def __call__(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_cross_attentions: bool = False,
        **options: Any,
    ) -> DecoderOutput:
        """Run the decoder. Positions follow from places; cross attentions come with the others."""
        output = self.model(
            attention_mask=self.mask,
            decoder_input_ids=input_ids,
            decoder_inputs_embeds=inputs_embeds,
            decoder_attention_mask=attention_mask,
            encoder_outputs=self.encoded,
            **options,
        )
        return DecoderOutput(
            output.logits,
            output.cache,
            output.decoder_hidden_states,
            output.decoder_attentions,
            output.cross_attentions,
        )

    def of_rows(self, rows: Tensor) -> DecoderOf:
        """Return the same for these rows of the batch."""
        mask = None if self.mask is None else self.mask[rows]
        return replace(self, encoded=(self.encoded[0][rows],), mask=mask)

    def get_input_embeddings(self) -> Any:
        """Return the module from tokens to embeddings."""
        return self.model.get_input_embeddings()


@dataclass
class DecoderContext(Context):
    """The texts of a decoder; each row belongs to a row of the encoder's."""

    def select(self, rows: Tensor) -> None:
        """Continue with these rows, (batch,), of those so far."""
        super().select(rows)
        assert isinstance(self.model, DecoderOf)
        self.model = self.model.of_rows(rows)


@dataclass(frozen=True)
class DecoderInputs:
    """What `generate` of such a model begins with.

    Attributes:
        decoder: reads the decoder's texts.
        input_ids: with which these texts begin, `(batch, length)`.
        attention_mask: `(batch, length)`, 0 at their padding.
    """

    decoder: DecoderOf
    input_ids: Tensor
    attention_mask: Tensor


def read_by_encoder(
    model: Any,
    config: GenerationConfig,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    encoder_outputs: Any,
    decoder_input_ids: Tensor | None,
    decoder_attention_mask: Tensor | None,
) -> DecoderInputs:
    """Let the encoder read the prompts of a call, and return what the decoder begins with.

    Args:
        model: the whole model.
        config: of the call.
        input_ids: the prompts `(batch, length)`.
        inputs_embeds: `(batch, length, hidden_size)`, instead of `input_ids`.
        attention_mask: `(batch, length)`, 0 at padding; None: padding is found by `pad_token_id`.
        encoder_outputs: what the encoder returned for the prompts, instead of the prompts.
        decoder_input_ids: with which the decoder's texts begin; `decoder_start_token_id` goes before them
            unless one of them begins with it. None: that token alone.
        decoder_attention_mask: `(batch, length)`, 0 at padding of `decoder_input_ids`.

    Raises:
        ValueError: there are no prompts, shapes do not match, a token is outside the vocabulary, or there is
            no token to start with.
    """
    if encoder_outputs is None:
        if input_ids is None and inputs_embeds is None:
            raise ValueError("an encoder reads input_ids, inputs_embeds or encoder_outputs: pass one of them")
        if input_ids is not None and inputs_embeds is not None:
            raise ValueError("an encoder reads either input_ids or inputs_embeds, not both")
        prompts = read_prompts(model, input_ids, inputs_embeds, attention_mask, config)
        if input_ids is not None and attention_mask is None:
            attention_mask = guess_mask(prompts.given, config)
        with torch.no_grad():
            encoder_outputs = model.get_encoder()(
                None if input_ids is None else prompts.given,
                attention_mask,
                inputs_embeds=inputs_embeds,
                **{
                    name: True
                    for name in ("output_hidden_states", "output_attentions")
                    if config.return_dict_in_generate and getattr(config, name)
                },
            )
    states: Tensor = encoder_outputs[0]
    start = _start(model, config, len(states), states.device)
    if decoder_input_ids is None:
        decoder_input_ids = start
    else:
        decoder_input_ids = decoder_input_ids.to(states.device)
        if bool((decoder_input_ids[:, :1] != start).all()):
            decoder_input_ids = torch.cat((start, decoder_input_ids), dim=1)
            if decoder_attention_mask is not None:
                first = torch.ones_like(decoder_attention_mask[:, :1])
                decoder_attention_mask = torch.cat((first, decoder_attention_mask), dim=1)
    if decoder_attention_mask is None:  # the token that starts a text may be that of padding
        decoder_attention_mask = torch.ones_like(decoder_input_ids)
    if attention_mask is not None and bool(attention_mask.all()):
        attention_mask = None
    decoder = DecoderOf(model, encoder_outputs, attention_mask)
    return DecoderInputs(decoder, decoder_input_ids, decoder_attention_mask)


def _start(model: Any, config: GenerationConfig, batch: int, device: torch.device) -> Tensor:
    """Return the token that each text of the decoder begins with, (batch, 1)."""
    stated = (
        config.decoder_start_token_id,
        getattr(model.config, "decoder_start_token_id", None),
        config.bos_token_id,
    )
    token = next((token for token in stated if token is not None), None)
    if token is None:
        raise ValueError("the decoder's text starts with decoder_start_token_id, which is not set")
    return torch.tensor(token, device=device).reshape(-1, 1).expand(batch, 1).clone()
