"""`LayerStack`: what happens between tokens and last states, whatever the layers are.

Shape letters: B batch, T new positions, S positions seen including the new ones.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from torchgguf.models.base import PreTrainedModel
from torchgguf.models.outputs import BaseModelOutputWithPast
from torchgguf.nn import ATTENTION, Cache, DynamicCache, check_attention


class LayerStack(PreTrainedModel):
    """A model without a head: embedding, layers and the last norm.

    `attn_implementation` is a name in `ATTENTION`, as in `PreTrainedModel.from_pretrained`. A layer is given
    the stream `(B, T, hidden_size)`, what `prepare` has for it, the cache and the attention function; it
    returns the stream and the attention probabilities, or None for them.

    Attributes:
        layers_name: the attribute that holds the layers.
        norm_name: the attribute that holds the last norm.
        output_class: what `forward` returns.
    """

    layers_name: ClassVar[str] = "layers"
    norm_name: ClassVar[str] = "norm"
    output_class: ClassVar[type[BaseModelOutputWithPast]] = BaseModelOutputWithPast

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config)
        self.attn_implementation = attn_implementation or config.attn_implementation or "sdpa"
        check_attention(self.attn_implementation)

    def prepare(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | None,
    ) -> tuple[Tensor, Iterable[tuple[Any, ...]]]:
        """Make of the embedded tokens what goes into the first layer, and what else each layer is given."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the layers.

        Args:
            input_ids: tokens `(B, T)`; or give `inputs_embeds` `(B, T, hidden_size)`.
            attention_mask: `(B, S)`, zero where a position, cached ones included, is padding on either side.
            position_ids: `(B or 1, T)`; by default they count on from the cache.
            cache: the positions before these; it is updated in place. `past_key_values` is its second name.
            inputs_embeds: in place of `input_ids`.
            use_cache: whether to make a cache if none is given; by default the config says.
            output_attentions: also return all probabilities; with `attn_implementation="eager"` only.
            output_hidden_states: also return the stream before, between and after the layers.
            return_dict: return an `output_class`, or its `to_tuple()` if False.

        Raises:
            ValueError: inputs contradict each other or have wrong shapes.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if output_attentions and self.attn_implementation != "eager":
            raise ValueError('output_attentions=True needs a model loaded with attn_implementation="eager"')
        attend = ATTENTION[self.attn_implementation]
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache()
        x = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        x, inputs = self.prepare(x, attention_mask, position_ids, cache)

        states, attentions = [x], []
        for layer, given in zip(getattr(self, self.layers_name), inputs, strict=True):
            x, probabilities = self.run_layer(layer, x, *given, cache, attend)
            if output_hidden_states:
                states.append(x)
            if output_attentions:
                attentions.append(probabilities)
        x = states[-1] = getattr(self, self.norm_name)(x)
        output = self.output_class(
            last_hidden_state=x,
            cache=cache,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()
