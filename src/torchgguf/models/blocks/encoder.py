"""Encoders: every position sees all others, and what a text becomes is the state of each token.

Shape letters: B batch, T positions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.nn import AttentionMask, Cache, Embedding, LayerNorm, Linear, bidirectional_mask


class EncoderEmbeddings(nn.Module):
    """The sum of the embeddings of tokens and of their kinds, normalised."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, padding = config.hidden_size, config.pad_token_id
        if padding is not None and padding not in range(config.vocab_size):
            padding = None
        self.word_embeddings: nn.Module = Embedding(config.vocab_size, size, padding)
        self.add_positions(config)
        self.token_type_embeddings: nn.Module | None = None
        if config.type_vocab_size:
            self.token_type_embeddings = Embedding(config.type_vocab_size, size)
        self.LayerNorm = LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def add_positions(self, config: Any) -> None:
        """Create what depends on positions; by default nothing."""

    def with_kinds(self, x: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Add the embeddings of the kinds `(B, T)`, or of kind 0, to embedded tokens."""
        if self.token_type_embeddings is None:
            return x
        kinds = x.new_zeros((1, 1), dtype=torch.long) if token_type_ids is None else token_type_ids
        added: Tensor = x + self.token_type_embeddings(kinds).to(x.dtype)
        return added

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Normalise the sum."""
        embedded: Tensor = self.dropout(self.LayerNorm(x))
        return embedded


class Pooler(nn.Module):
    """Maps the state of the first token to that of the text."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, T, hidden_size)` to `(B, hidden_size)`."""
        return torch.tanh(self.dense(x[:, 0]))


class EncoderStack(LayerStack):
    """A model without a head whose layers see all positions. It has no cache.

    A subclass has the module `embeddings`, which maps embedded tokens and positions to the input of the first
    layer, and whose `with_kinds` adds the kinds of tokens. By default, each layer ends with a norm, and there
    is no last one.
    """

    ends_with_context = True
    norm_name = "unchanged"
    output_class: ClassVar[type[Any]] = BaseModelOutputWithPoolingAndCrossAttentions
    argument_order: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "inputs_embeds",
    )
    embeddings: Any

    def unchanged(self, x: Tensor) -> Tensor:
        """Return the last states as they are."""
        return x

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        table: nn.Module = self.embeddings.word_embeddings
        return table

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Map embedded tokens to the input of the first layer."""
        embedded: Tensor = self.embeddings(x, position_ids)
        return embedded

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the masks, by how many positions on either side the layers see."""
        return {reach: bidirectional_mask(attention_mask, x, reach) for reach in self.windows}

    def forward(  # type: ignore[override]  # transformers has this order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the layers; return an `output_class`.

        `LayerStack.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, T)`, zero at padding on either side.
            token_type_ids: kinds of the tokens `(B, T)`, by default 0, as of a first text.
            position_ids: `(B or 1, T)`; by default 0, 1, 2, …, padding included.
            inputs_embeds: `(B, T, hidden_size)`, instead of `input_ids`.
            cache: must be None.
            use_cache: has no effect.
            options: more arguments of `LayerStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        if cache is not None:
            raise ValueError(f"cache must be None: {type(self).__name__} sees all positions at once")
        if (input_ids is None) is not (inputs_embeds is None):
            tokens = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
            input_ids, inputs_embeds = None, self.embeddings.with_kinds(tokens, token_type_ids)
        return super().forward(
            input_ids, attention_mask, position_ids, inputs_embeds=inputs_embeds, use_cache=False, **options
        )


class WithPooler:
    """For a model without a head, but with a pooler: goes before its class.

    Attributes:
        pooler: maps the states of the tokens to that of the text.
    """

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)  # type: ignore[call-arg]
        self.pooler = Pooler(config)
        self.pooler.apply(self.init_weights)  # type: ignore[attr-defined]

    def forward(self, *args: Any, return_dict: bool | None = True, **options: Any) -> Any:
        """Run the model, and the pooler."""
        output = super().forward(*args, **options)  # type: ignore[misc]
        output.pooler_output = self.pooler(output.last_hidden_state)
        return output.to_tuple() if return_dict is False else output
