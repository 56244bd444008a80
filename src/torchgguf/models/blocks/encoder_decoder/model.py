"""Whole models of an encoder and a decoder: without a head, and one that predicts tokens.

Shape letters: B batch, E positions of the encoder's text, T new positions of the decoder's, S positions of
the decoder's text seen, the new ones included.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.generation import GenerationMixin
from torchgguf.models.blocks.losses import IGNORED, token_loss
from torchgguf.models.blocks.outputs import Seq2SeqLMOutput, Seq2SeqModelOutput
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Cache, Embedding, Linear, ModelOutput

# config, embedding, number of layers; named: is_decoder, attn_implementation
MakeStack = Callable[..., Any]


class EncoderDecoderModel(PreTrainedModel):
    """An encoder and a decoder with one embedding.

    Attributes:
        make_stack: makes the encoder or the decoder.
    """

    task = "base"
    base_model_prefix = "transformer"
    make_stack: ClassVar[MakeStack]

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        make, options = type(self).make_stack, {"attn_implementation": attn_implementation}
        self.shared: nn.Module = Embedding(config.vocab_size, config.d_model)
        self.encoder = make(config, self.shared, config.num_layers, is_decoder=False, **options)
        self.decoder = make(config, self.shared, config.num_decoder_layers, is_decoder=True, **options)
        self.add_head(config)
        self.post_init()

    def add_head(self, config: Any) -> None:
        """Create what follows the decoder; by default nothing."""

    def get_encoder(self) -> Any:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> Any:
        """Return the decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.shared

    def set_input_embeddings(self, module: nn.Module) -> None:
        """Replace the module that looks up tokens."""
        self.shared = module
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use one embedding under all of its names, and in the head, if the config asks for it."""
        self.encoder.embed_tokens = self.decoder.embed_tokens = self.shared
        super().tie_weights()

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer beside the stacks: embedding and head."""
        if isinstance(module, Embedding | Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_factor)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        return_dict: bool | None = True,
        **options: Any,
    ) -> Any:
        """Run the encoder, unless its output is given, and the decoder; return a `Seq2SeqModelOutput`.

        Args:
            input_ids: tokens of the encoder, `(B, E)`.
            attention_mask: `(B, E)`, zero at padding.
            decoder_input_ids: tokens of the decoder, `(B, T)`.
            decoder_attention_mask: `(B, S)`, zero at padding.
            encoder_outputs: what the encoder returned for the text, instead of the text.
            cache: states of earlier positions of the decoder.
            inputs_embeds: `(B, E, d_model)`, instead of `input_ids`.
            decoder_inputs_embeds: `(B, T, d_model)`, instead of `decoder_input_ids`.
            use_cache: whether to create a cache if `cache` is None.
            return_dict: if False, return a tuple.
            options: `output_attentions` and `output_hidden_states`, as in `LayerStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        encoded = encoder_outputs
        if encoded is None:
            encoded = self.encoder(input_ids, attention_mask, inputs_embeds=inputs_embeds, **options)
        decoded = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            encoder_hidden_states=encoded[0],
            encoder_attention_mask=attention_mask,
            inputs_embeds=decoder_inputs_embeds,
            cache=cache,
            use_cache=use_cache,
            **options,
        )
        output = Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            cache=decoded.cache,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded[0],
            encoder_hidden_states=_listed(encoded, "hidden_states", 1),
            encoder_attentions=_listed(encoded, "attentions", 2),
        )
        return output.to_tuple() if return_dict is False else output


def _listed(encoded: Any, name: str, place: int) -> Any:
    """Return what the encoder listed, from an output or from a tuple."""
    if isinstance(encoded, ModelOutput) or hasattr(encoded, name):
        return getattr(encoded, name)
    return encoded[place] if len(encoded) > place else None


class ForConditionalGeneration(EncoderDecoderModel, GenerationMixin):
    """Predicts the next token of the decoder's text."""

    task = "seq2seq_lm"
    accepts_loss_kwargs = False
    lm_head: nn.Module

    def add_head(self, config: Any) -> None:
        """Create the layer that scores tokens."""
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        """Return the module that scores tokens."""
        return self.lm_head

    def set_output_embeddings(self, module: nn.Module) -> None:
        """Replace the module that scores tokens."""
        self.lm_head = module

    def forward(  # type: ignore[override]  # transformers has this order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        return_dict: bool | None = True,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> Any:
        """Score the next token at every position of the decoder's text; return a `Seq2SeqLMOutput`.

        `EncoderDecoderModel.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens of the encoder, `(B, E)`.
            attention_mask: `(B, E)`, zero at padding.
            decoder_input_ids: tokens of the decoder, `(B, T)`; by default the labels, one position later.
            decoder_attention_mask: `(B, S)`, zero at padding.
            encoder_outputs: what the encoder returned for the text, instead of the text.
            cache: states of earlier positions of the decoder.
            inputs_embeds: `(B, E, d_model)`, instead of `input_ids`.
            decoder_inputs_embeds: `(B, T, d_model)`, instead of `decoder_input_ids`.
            labels: the tokens that each position must predict, `(B, T)`, -100 at positions to ignore; with
                labels, the loss is computed.
            use_cache: whether to create a cache if `cache` is None.
            return_dict: if False, return a tuple.
            logits_to_keep: number of last positions to score (0: all), or an index of positions.
            options: more arguments of `EncoderDecoderModel.forward`.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        decoded = super().forward(
            input_ids,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            cache,
            inputs_embeds,
            decoder_inputs_embeds,
            use_cache,
            **options,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.score(decoded.last_hidden_state[..., kept, :])
        decoded.last_hidden_state = None
        output = Seq2SeqLMOutput(
            loss=None if labels is None else token_loss(logits, labels.to(logits.device)),
            logits=logits,
            **dict(decoded.items()),
        )
        return output.to_tuple() if return_dict is False else output

    def score(self, states: Tensor) -> Tensor:
        """Map last states `(..., d_model)` to logits `(..., vocab_size)`."""
        logits: Tensor = self.lm_head(states)
        return logits

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder's tokens `(B, T)` for which labels `(B, T)` are the next ones.

        Raises:
            ValueError: `decoder_start_token_id` or `pad_token_id` of the config is None.
        """
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or pad is None:
            raise ValueError("labels need decoder_start_token_id and pad_token_id in the config")
        first = torch.full_like(labels[..., :1], start)
        return torch.cat((first, labels[..., :-1].masked_fill(labels[..., :-1] == IGNORED, pad)), dim=-1)
