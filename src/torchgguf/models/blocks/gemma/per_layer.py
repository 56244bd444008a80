"""Per-layer embeddings of Gemma 3n and Gemma 4: each token has a vector for each layer, beside its own.

Shape letters: B batch, T new positions, L layers, P size of a layer's vector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks.decoder import DecoderModel
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import Cache, Embedding, Linear, Slot, WideRMSNorm, find_activation

PER_LAYER_ROWS = (
    Row("per_layer_token_embd", "embed_tokens_per_layer"),
    Row("per_layer_model_proj", "per_layer_model_projection"),
    Row("per_layer_proj_norm", "per_layer_projection_norm"),
    Row("blk.{}.inp_gate", "layers.{}.per_layer_input_gate"),
    Row("blk.{}.proj", "layers.{}.per_layer_projection"),
    Row("blk.{}.post_norm", "layers.{}.post_per_layer_input_norm"),
)
_SOME = 4096  # rows of a table that are unpacked at a time


class TallEmbedding(Embedding):
    """An `Embedding` that files store with further rows of zeros.

    Attributes:
        config: its `vocab_size` is the number of rows in files, unless there are more.
    """

    config: Any

    def slots(self) -> Iterable[Slot]:
        """List the table as it is in files."""
        height = max(self.config.vocab_size, self.num_embeddings)
        for slot in super().slots():
            yield replace(slot, shape=(height, self.embedding_dim), read=partial(self._read, height))

    def _read(self, height: int) -> Tensor:
        table = self.weight.detach()
        return F.pad(table, (0, 0, 0, height - len(table))) if height > len(table) else table


class PerLayerModel(DecoderModel):
    """A decoder whose layers read vectors of the tokens besides the stream.

    The vectors are those of a table, added to what a projection makes of the embedded tokens. Without
    `hidden_size_per_layer_input` there are none.
    """

    further_tables: ClassVar[Mapping[str, str]] = {"embed_tokens_per_layer": "vocab_size_per_layer_input"}

    def add_modules(self, config: Any) -> None:
        """Create the table and the projection."""
        if not (size := config.hidden_size_per_layer_input):
            return
        every = config.num_hidden_layers * size
        padding = config.pad_token_id
        if padding is not None and padding not in range(config.vocab_size_per_layer_input):
            padding = None
        self.embed_tokens_per_layer = self.make_table(config, every, padding)
        self.per_layer_model_projection = Linear(config.hidden_size, every, bias=False)
        self.per_layer_projection_norm = WideRMSNorm(size, eps=config.rms_norm_eps)

    def make_table(self, config: Any, every: int, padding: int | None) -> nn.Module:
        """Create the table, given the size of a row and the token of padding."""
        table = Embedding(config.vocab_size_per_layer_input, every, padding)
        table.scale = config.hidden_size_per_layer_input**0.5
        return table

    def forward(  # type: ignore[override]  # transformers has this order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        per_layer_inputs: Tensor | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the layers; return an `output_class`.

        `LayerStack.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, S)`, zero at padding on either side; it includes cached positions.
            position_ids: `(B or 1, T)`; by default they continue those of the cache.
            cache: states of earlier positions, updated in place.
            inputs_embeds: `(B, T, hidden_size)`, instead of `input_ids`.
            per_layer_inputs: vectors from the table, `(B, T, L, P)`, as `get_per_layer_inputs` returns them;
                only with `inputs_embeds`.
            use_cache: whether to create a cache if `cache` is None; by default as the config states.
            options: more arguments of `LayerStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        if input_ids is not None and per_layer_inputs is not None:
            raise ValueError("pass per_layer_inputs with inputs_embeds only")
        inputs = None
        if (input_ids is None) is not (inputs_embeds is None):
            x: Tensor = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
            if self.config.hidden_size_per_layer_input:
                if per_layer_inputs is None:
                    per_layer_inputs = self.get_per_layer_inputs(input_ids, inputs_embeds)
                inputs = self.project_per_layer_inputs(x, per_layer_inputs)
            input_ids, inputs_embeds = None, x
        return super().forward(
            input_ids,
            attention_mask,
            position_ids,
            cache,
            inputs_embeds,
            use_cache,
            layer_inputs=inputs,
            **options,
        )

    def get_per_layer_inputs(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Any:
        """Return the vectors of tokens from the table, `(B, T, L, P)`.

        Args:
            input_ids: tokens `(B, T)`, or None.
            inputs_embeds: the embedded tokens `(B, T, hidden_size)`, by which they are found if `input_ids`
                is None.

        Raises:
            ValueError: `inputs_embeds` are not those of tokens.
        """
        if input_ids is None:
            assert inputs_embeds is not None
            input_ids = _find_tokens(self.get_input_embeddings(), inputs_embeds, self.config.vocab_size)
        vectors: Tensor = self.embed_tokens_per_layer(input_ids)
        return vectors.unflatten(-1, (self.config.num_hidden_layers, -1))

    def project_per_layer_inputs(
        self, inputs_embeds: Tensor, per_layer_inputs: Tensor | None = None
    ) -> Tensor:
        """Return what the layers read, `(B, T, L, P)`.

        Args:
            inputs_embeds: the embedded tokens `(B, T, hidden_size)`.
            per_layer_inputs: the vectors from the table; None: the projection alone.
        """
        projected = self.per_layer_model_projection(inputs_embeds) * self.config.hidden_size**-0.5
        projected = projected.unflatten(-1, (self.config.num_hidden_layers, -1))
        normed: Tensor = self.per_layer_projection_norm(projected)
        return normed if per_layer_inputs is None else (normed + per_layer_inputs) * 2**-0.5


def _find_tokens(table: nn.Module, x: Tensor, vocab_size: int) -> Tensor:
    """Return the tokens `(B, T)` whose embeddings these are."""
    rows = x.detach().flatten(0, 1)
    found = torch.full((len(rows),), -1, device=x.device)
    with torch.no_grad():
        for start in range(0, vocab_size, _SOME):
            some = table(torch.arange(start, min(start + _SOME, vocab_size), device=x.device))
            # First by one number of each: comparing all numbers of all pairs would take the memory of both.
            places, tokens = (rows[:, :1] == some[:, 0]).nonzero(as_tuple=True)
            same = (rows[places] == some[tokens]).all(dim=-1)
            found[places[same]] = start + tokens[same]
    if (found < 0).any():
        raise ValueError("inputs_embeds that are not those of tokens require per_layer_inputs")
    return found.view(x.shape[:2])


class PerLayerInput(nn.Module):
    """Mixin of a layer: how it reads its vectors of the tokens."""

    def add_input(self, config: Any, layer_idx: int) -> None:
        """Create the modules."""
        self.input_idx = layer_idx
        self.per_layer_input_gate = Linear(config.hidden_size, config.hidden_size_per_layer_input, bias=False)
        self.per_layer_projection = Linear(config.hidden_size_per_layer_input, config.hidden_size, bias=False)
        self.post_per_layer_input_norm = WideRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.act_fn = find_activation("hidden_act", config.hidden_act)

    def read_input(self, x: Tensor, step: Step) -> Tensor:
        """Return what the vectors add to the stream `(B, T, hidden_size)`."""
        assert step.layer_inputs is not None
        vectors = step.layer_inputs[:, :, self.input_idx]
        gated: Tensor = self.act_fn(self.per_layer_input_gate(x)) * vectors
        added: Tensor = self.post_per_layer_input_norm(self.per_layer_projection(gated))
        return added
