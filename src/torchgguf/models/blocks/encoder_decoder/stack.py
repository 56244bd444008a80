"""The stacks of layers that know positions by biases: an encoder, or a decoder.

Shape letters: B batch, T new positions, S positions seen including the new ones, E positions of the encoder.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from torchgguf.models.blocks.encoder_decoder.layers import (
    Block,
    CrossAttention,
    PlainOrGatedMLP,
    RelativeAttention,
    biased,
)
from torchgguf.models.blocks.outputs import BaseModelOutputWithPastAndCrossAttentions
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.models.blocks.step import Encoded, Step
from torchgguf.nn import (
    AttentionMask,
    Cache,
    Embedding,
    Linear,
    RMSNorm,
    attention_masks,
    bidirectional_mask,
    next_positions,
)
from torchgguf.nn.relative_bias import RelativeBias


class RelativeStack(LayerStack):
    """An encoder, whose positions see all others and which has no cache; or a decoder.

    Args:
        config: of the model.
        embedding: looks up tokens; the model owns it.
        layers: number of layers.
        is_decoder: whether a position sees those before it only, and the states of an encoder.
        shares_biases: whether all layers use the biases of the first one; otherwise each has its own.
        attn_implementation: as in `LayerStack`.
    """

    layers_name = "block"
    norm_name = "final_layer_norm"
    output_class = BaseModelOutputWithPastAndCrossAttentions

    def __init__(
        self,
        config: Any,
        embedding: nn.Module,
        layers: int,
        *,
        is_decoder: bool,
        shares_biases: bool,
        attn_implementation: str | None = None,
    ) -> None:
        super().__init__(config, attn_implementation)
        self.is_decoder = is_decoder
        self.shares_biases = shares_biases
        self.embed_tokens = embedding
        self.block = nn.ModuleList(
            Block(
                config,
                RelativeAttention(
                    config, i, has_biases=i == 0 or not shares_biases, both_sides=not is_decoder
                ),
                CrossAttention(config, i) if is_decoder else None,
            )
            for i in range(layers)
        )
        self.final_layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.embed_tokens

    def tie_weights(self) -> None:
        """Do nothing: the model owns the embedding."""

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Map embedded tokens to the input of the first layer."""
        embedded: Tensor = self.dropout(x)
        return embedded

    def finish(self, x: Tensor) -> Tensor:
        """Return the last states, given the output of the last layer."""
        last: Tensor = self.dropout(self.final_layer_norm(x))
        return last

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the one mask of all layers, without biases."""
        if self.is_decoder:
            return attention_masks(self.windows, attention_mask, x, cache)
        return {None: bidirectional_mask(attention_mask, x)}

    def complete_step(self, step: Step, x: Tensor) -> Step:
        """Return a step with biases of relative positions in the mask, or with buckets for each layer."""
        mask, new = step.masks[None], x.shape[1]
        past = 0 if step.cache is None else step.cache.known_length or 0
        keys = past + new if mask.allowed is None else mask.allowed.shape[-1]
        biases: Any = self.block[0].get_submodule("layer.0.SelfAttention.relative_attention_bias")
        buckets = biases.buckets(next_positions(step.cache, new, x.device)[0], keys)
        if not self.shares_biases:
            return replace(step, buckets=buckets)
        return replace(step, masks={None: biased(mask, biases(buckets).to(x))})

    def forward(  # type: ignore[override]  # transformers has this order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the layers; return an `output_class`.

        `LayerStack.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, S)`, zero at padding on either side.
            encoder_hidden_states: `(B, E, d_model)`, for a decoder. None: the layers read no encoder.
            encoder_attention_mask: `(B, E)`, zero at padding.
            inputs_embeds: `(B, T, d_model)`, instead of `input_ids`.
            cache: states of earlier positions of a decoder.
            use_cache: whether a decoder creates a cache if `cache` is None; by default as the config states.
            options: more arguments of `LayerStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        if not self.is_decoder:
            if cache is not None or encoder_hidden_states is not None:
                raise ValueError(
                    "cache and encoder_hidden_states must be None: an encoder sees all positions at once"
                )
            use_cache = False
        encoded = None
        if encoder_hidden_states is not None:
            mask = bidirectional_mask(encoder_attention_mask, encoder_hidden_states)
            encoded = Encoded(encoder_hidden_states, mask)
        return super().forward(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            cache=cache,
            use_cache=use_cache,
            encoded=encoded,
            **options,
        )

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer: the wider its input, the smaller its weights."""
        initialize(module, self.config)


def initialize(module: nn.Module, config: Any) -> None:
    """Initialize a layer as transformers does: the wider its input, the smaller its weights."""
    factor, width = config.initializer_factor, config.d_model
    if isinstance(module, RelativeAttention | CrossAttention):
        for name, fan_in in {"q": width * config.d_kv, "k": width, "v": width}.items():
            nn.init.normal_(module.get_parameter(f"{name}.weight"), std=factor * fan_in**-0.5)
        output: Any = module.o
        nn.init.normal_(output.weight, std=factor * output.in_features**-0.5)
    elif isinstance(module, PlainOrGatedMLP):
        for layer in module.children():
            if isinstance(layer, Linear):
                nn.init.normal_(layer.weight, std=factor * layer.in_features**-0.5)
    elif isinstance(module, RelativeBias):
        nn.init.normal_(module.weight, std=factor * width**-0.5)
    elif isinstance(module, Embedding):
        nn.init.normal_(module.weight, std=factor)
