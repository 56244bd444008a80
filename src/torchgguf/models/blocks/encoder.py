"""Encoders: every position sees all others, and what a text becomes is the state of each token.

Shape letters: B batch, T positions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.nn import AttentionMask, Cache, bidirectional_mask


class EncoderStack(LayerStack):
    """A model without a head whose layers see all positions. It has no cache.

    A subclass has the modules of transformers: `embeddings`, which maps embedded tokens and positions to
    the input of the first layer, and whose `with_kinds` adds the kinds of tokens; and `encoder.layer`.
    """

    ends_with_context = True
    output_class: ClassVar[type[Any]] = BaseModelOutputWithPoolingAndCrossAttentions
    argument_order = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
    embeddings: Any
    encoder: Any

    @property
    def layers(self) -> nn.ModuleList:
        """The layers."""
        layers: nn.ModuleList = self.encoder.layer
        return layers

    def norm(self, x: Tensor) -> Tensor:
        """Return the last states as they are: each layer ends with a norm."""
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
        """Create the mask of padding."""
        return {None: bidirectional_mask(attention_mask, x)}

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
