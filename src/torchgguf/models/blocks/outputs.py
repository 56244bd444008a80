"""Outputs of models: dataclasses that support indexing and unpacking like tuples.

Shapes: B batch, T new positions, S positions seen including the new ones, H query heads. In each:
`hidden_states` are the embeddings and the output of every layer, the last one normalised, each
`(B, T, hidden_size)`; `attentions` are every layer's probabilities `(B, H, T, S)`; `loss` is a scalar.
"""

from torch import Tensor

from torchgguf.nn import Cache, ModelOutput


class BaseModelOutputWithPast(ModelOutput):
    """Output of a model without a head: `last_hidden_state` `(B, T, hidden_size)`."""

    last_hidden_state: Tensor
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class BaseModelOutputWithPastAndCrossAttentions(BaseModelOutputWithPast):
    """The same, of models that may attend to an encoder: `cross_attentions` are like `attentions`."""

    cross_attentions: tuple[Tensor, ...] | None = None


class BaseModelOutput(ModelOutput):
    """Output of an encoder without a head or a pooler: `last_hidden_state` `(B, T, hidden_size)`."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cache: Cache | None = None


class BaseModelOutputWithPooling(ModelOutput):
    """Output of an encoder without a head: `last_hidden_state` `(B, T, hidden_size)`; `cache` is None.

    `pooler_output` is None: the layer that transformers computes it with is not in GGUF files.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cache: Cache | None = None


class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """The same, of encoders that may be decoders in transformers: `cross_attentions` is None."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    cache: Cache | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class MoeModelOutputWithPast(BaseModelOutputWithPast):
    """The same, of mixtures of experts: `router_logits` are scores of each router, `(B * T, num_experts)`."""

    router_logits: tuple[Tensor, ...] | None = None


class CausalLMOutputWithPast(ModelOutput):
    """Output of a language model: `logits` `(B, T or logits_to_keep, vocab_size)`, `loss` in nats a token."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CausalLMOutputWithCrossAttentions(CausalLMOutputWithPast):
    """The same, of models that may attend to an encoder: `cross_attentions` are like `attentions`."""

    cross_attentions: tuple[Tensor, ...] | None = None


class MoeCausalLMOutputWithPast(ModelOutput):
    """The same, of mixtures of experts: `router_logits` are scores of each router, `(B * T, num_experts)`.

    `aux_loss` measures how unevenly they spread tokens over experts, a scalar; `loss` contains a part of it.
    """

    loss: Tensor | None = None
    aux_loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    router_logits: tuple[Tensor, ...] | None = None


class SequenceClassifierOutputWithPast(ModelOutput):
    """Output of a model that scores whole texts: `logits` `(B, num_labels)`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class TokenClassifierOutput(ModelOutput):
    """Output of a model that scores each token: `logits` `(B, T, num_labels)`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class QuestionAnsweringModelOutput(ModelOutput):
    """Output of a model that finds answers in a text: scores of starts and ends, `(B, T)` each."""

    loss: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Seq2SeqModelOutput(ModelOutput):
    """Output of an encoder and a decoder without a head: `last_hidden_state` `(B, T, hidden_size)`.

    `cross_attentions` are like `attentions`: each layer's probabilities of the encoder's positions.
    """

    last_hidden_state: Tensor | None = None
    cache: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


class Seq2SeqLMOutput(ModelOutput):
    """The same of a model that predicts tokens: `logits` `(B, T, vocab_size)`, `loss` in nats a token."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
