"""`LayerStack`: the computation from tokens to last states, for any kind of layer.

Shape letters: B batch, T new positions, S positions seen including the new ones.
"""

import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.outputs import BaseModelOutputWithPast
from torchgguf.models.blocks.step import Encoded, Step, StepRecord
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import (
    ATTENTION_FUNCTIONS,
    AttentionMask,
    Cache,
    DynamicCache,
    Padding,
    Rotation,
    attention_masks,
    check_attention,
    next_positions,
)
from torchgguf.nn.tracing import is_traced


def check_positions(position_ids: Tensor, known: int, name: str) -> None:
    """Refuse positions beyond those that a model has embeddings for.

    On a GPU there is no check: waiting for its result is slower than the lookup.

    Args:
        position_ids: the positions.
        known: the number of positions with embeddings.
        name: of the field of the config that states it.

    Raises:
        ValueError: a position is `known` or more.
    """
    asked = position_ids.device.type == "cpu" and not is_traced()
    if asked and (last := int(position_ids.max())) >= known:
        raise ValueError(f"position_ids must be below {name}={known}, got {last}")


class LayerStack(PreTrainedModel):
    """A model without a head: embedding, layers and the last norm.

    A layer is any module that maps the stream `(B, T, hidden_size)` and the `Step` to the stream.

    Args:
        config: config of the model.
        attn_implementation: a name in `ATTENTION_FUNCTIONS`; by default the config's, otherwise `"sdpa"`.

    Attributes:
        layers_name: the attribute that holds the layers.
        norm_name: the attribute that holds the last norm.
        ends_with_context: whether there are no positions beyond `max_position_embeddings`.
        output_class: class of what `forward` returns.
        windows: the windows of all layers: numbers of positions that a query sees; None: all.
        is_recurrent: whether there are layers that padding must be moved for: `RecurrentMixer`.
    """

    task = "base"
    layers_name: ClassVar[str] = "layers"
    norm_name: ClassVar[str] = "norm"
    ends_with_context: ClassVar[bool] = False
    output_class: ClassVar[type[BaseModelOutputWithPast]] = BaseModelOutputWithPast
    windows: Set[int | None] = frozenset({None})
    is_recurrent: bool = False

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config)
        self.attn_implementation = attn_implementation or config.attn_implementation or "sdpa"
        check_attention(self.attn_implementation)

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Map embedded tokens `(B, T, hidden_size)` to the input of the first layer."""
        return x

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the new positions `(B or 1, T)`, by kind; by default there are no angles."""
        return {}

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create the masks of one forward pass, one for each window of the layers."""
        return attention_masks(self.windows, attention_mask, x, cache)

    def complete_step(self, step: Step, x: Tensor) -> Step:
        """Return a step with what only the layers of this model share; `x` is `(B, T, hidden_size)`."""
        return step

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
        output_router_logits: bool | None = None,
        token_type_ids: Tensor | None = None,
        layer_inputs: Tensor | None = None,
        encoded: Encoded | None = None,
        return_dict: bool | None = True,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the layers.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, S)`, zero at padding on either side; it includes cached positions. Or bool
                `(B or 1, 1, T, S)`, which positions each sees: for texts packed in a row. Recurrent layers do
                not support it.
            position_ids: `(B or 1, T)`; by default they continue those of the cache.
            cache: states of earlier positions, updated in place.
            inputs_embeds: `(B, T, hidden_size)`, instead of `input_ids`.
            use_cache: whether to create a cache if `cache` is None; by default as the config states.
            output_attentions: also return all probabilities; requires `attn_implementation="eager"`.
            output_hidden_states: also return the stream before, between and after the layers.
            output_router_logits: also return the scores of all routers of a mixture of experts; by default
                as the config states.
            token_type_ids: kinds of the inputs. They are ignored, with a warning unless all are 0: the model
                has no embeddings of kinds, but tokenizers may return them.
            layer_inputs: what layers read besides the stream, `(B, T, layers, size)`, if the model has such.
            encoded: what the layers read of an encoder, if this is a decoder that does.
            return_dict: if False, return a tuple instead of an `output_class`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        if output_attentions and self.attn_implementation != "eager":
            raise ValueError(
                'output_attentions=True requires a model loaded with attn_implementation="eager"'
            )
        if token_type_ids is not None and not is_traced():  # a graph cannot read values
            self._warn_of_kinds(token_type_ids)
        if not hasattr(self.output_class, "router_logits"):
            if output_router_logits:
                raise ValueError(f"output_router_logits=True: {type(self).__name__} has no routers")
        elif output_router_logits is None:
            output_router_logits = getattr(self.config, "output_router_logits", False)
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache()
        x: Tensor = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = next_positions(cache, x.shape[1], x.device)
        record = StepRecord(
            attentions=[] if output_attentions else None,
            cross_attentions=[] if output_attentions and encoded is not None else None,
            router_logits=[] if output_router_logits else None,
        )
        if self.is_recurrent and attention_mask is not None and attention_mask.dim() == 4:
            raise ValueError("attention_mask must be (B, S): recurrent layers read all of a row in its order")
        padding = Padding.among_new(attention_mask, x.shape[1], cache) if self.is_recurrent else None
        step = Step(
            self.make_masks(attention_mask, x, cache),
            ATTENTION_FUNCTIONS[self.attn_implementation],
            self.make_rotations(position_ids, x.dtype),
            cache,
            record,
            None if padding is None else padding.to(x.device),
            layer_inputs,
            encoded=encoded,
        )
        step = self.complete_step(step, x)

        x = self.embed(x, position_ids)
        states = [x]
        for i, layer in enumerate(getattr(self, self.layers_name)):
            x = self.run_layer(layer, x, step, again=i % self.checkpoint_every == 0)
            if output_hidden_states:
                states.append(x)
        x = self.finish(x)
        kept = {name: tuple(getattr(record, name)) for name in record.requested()}
        output = self.output_class(
            last_hidden_state=x,
            cache=cache,
            hidden_states=self.list_states(states, x) if output_hidden_states else None,
            **kept,
        )
        return output.to_tuple() if return_dict is False else output

    def finish(self, x: Tensor) -> Tensor:
        """Return the last states, given the output of the last layer."""
        last: Tensor = getattr(self, self.norm_name)(x)
        return last

    def list_states(self, stream: Sequence[Tensor], last: Tensor) -> tuple[Tensor, ...]:
        """Return the states that an output lists.

        Args:
            stream: before, between and after the layers.
            last: the normalised output of the last layer.
        """
        return (*stream[:-1], last)

    def _warn_of_kinds(self, token_type_ids: Tensor) -> None:
        """Warn of kinds of inputs on a CPU that are not 0; to read them from a GPU would stall it."""
        if token_type_ids.device.type == "cpu" and token_type_ids.any():
            # Python shows a warning once for each place in the code.
            name = type(self).__name__
            warnings.warn(f"token_type_ids are ignored: {name} has no embeddings of kinds", stacklevel=1)

    def run_layer(self, layer: nn.Module, x: Tensor, step: Step, again: bool = True) -> Tensor:
        """Return `layer(x, step)`; with gradient checkpointing, without the cache.

        The backward pass runs a layer again, which would append its keys to the cache a second time.

        Args:
            layer: the layer to run.
            x: its input.
            step: what all layers share.
            again: whether the backward pass runs this layer again if gradient checkpointing is on.

        Raises:
            ValueError: gradient checkpointing is on and the cache is not empty: masks depend on its contents.
        """
        if self.checkpoint_layer is None or not (self.training and torch.is_grad_enabled()):
            output: Tensor = layer(x, step)
            return output
        if step.cache is not None:
            if step.cache.get_seq_length() > 0:
                raise ValueError(
                    "gradient checkpointing is unsupported with a cache that holds positions: "
                    "leave the cache out, or disable gradient checkpointing"
                )
            # Python shows a warning once for each place in the code.
            warnings.warn("no cache is made while gradient checkpointing: set use_cache=False", stacklevel=1)
        if not again:
            x_once: Tensor = layer(x, replace(step, cache=None))
            return x_once

        attentions = (part for part in layer.modules() if isinstance(part, SelfAttention))
        lending = [attention.layer_idx for attention in attentions if attention.lends]

        def run(x: Tensor, *carried: Tensor) -> tuple[Tensor | None, ...]:
            # Tensors that others read must be arguments or outputs of the checkpointed function.
            record = step.record.empty()
            inner = outer.carrying(carried, cache=None, record=record)
            output = layer(x, inner)
            return output, *record.of_one_layer(), *(tensor for i in lending for tensor in inner.shared[i])

        outer = replace(step, shared=dict(step.shared))  # later layers do not change what a second run reads
        x, *others = self.checkpoint_layer(run, x, *outer.carried())
        for name in step.record.requested():
            step.record.add(name, others.pop(0))
        for i in lending:
            step.shared[i] = others.pop(0), others.pop(0)
        return x
