"""Gemma 3n, its text part (Google 2025): several streams, per-layer embeddings, keys that layers share.

The first layers keep only the gates far above their mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.container import GGUFError, TensorInfo
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.decoder import SandwichLayer
from torchgguf.models.blocks.gemma.altup import ALTUP_ROWS, ALTUP_STACKS, AltUp, AltUpProjections, Laurel
from torchgguf.models.blocks.gemma.per_layer import (
    PER_LAYER_ROWS,
    PerLayerInput,
    PerLayerModel,
    TallEmbedding,
)
from torchgguf.models.blocks.gemma.shared_keys import (
    SharedKeys,
    SharedKeysConfig,
    sharing_attention,
    wide_norm,
)
from torchgguf.models.blocks.gemma.sparse_gates import SparseMLP, Sparsity, usual_shares
from torchgguf.models.blocks.gemma.two_rotations import TwoBasesRope, TwoRotationsModel
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import SLIDING, LayerWindows
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Count,
    Field,
    Header,
    Implied,
    Rule,
    Unwritable,
    by_layer,
    largest_dimension,
    tensor_count,
)

_MOST_STREAMS = 16


@config_dataclass
class Gemma3nTextConfig(SharedKeysConfig):
    """Fields beyond those of all decoders, and other defaults.

    Every fifth layer sees all positions. `intermediate_size` may be a list, one number a layer; so is
    `activation_sparsity_pattern`, the shares of gates that MLPs leave out.
    """

    left_out = ("hidden_act",)
    model_type = "gemma3n_text"
    period = 5
    default_thetas: ClassVar[Mapping[str, float]] = {FULL: 1000000.0, SLIDING: 10000.0}

    vocab_size: int = 262400
    hidden_size: int = 2048
    intermediate_size: int | list[int] = 16384  # type: ignore[assignment]  # one a layer, as in transformers
    num_hidden_layers: int = 35
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 2
    head_dim: int | None = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 32768
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 1
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    sliding_window: int | None = 512
    final_logit_softcapping: float = 30.0
    vocab_size_per_layer_input: int = 262144
    hidden_size_per_layer_input: int = 256
    altup_active_idx: int = 0
    altup_coef_clip: float | None = 120.0
    altup_correct_scale: bool = True
    altup_num_inputs: int = 4
    num_kv_shared_layers: int = 15
    laurel_rank: int = 64
    activation_sparsity_pattern: list[float] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Complete and check the fields, and name the activation as other decoders do."""
        super().__post_init__(*legacy)
        self.hidden_act = self.hidden_activation
        if not isinstance(self.intermediate_size, list):
            self.intermediate_size = [self.intermediate_size] * self.num_hidden_layers
        if self.activation_sparsity_pattern is None:
            self.activation_sparsity_pattern = usual_shares(self.num_hidden_layers)
        for name in ("intermediate_size", "activation_sparsity_pattern"):
            if (count := len(getattr(self, name))) != self.num_hidden_layers:
                raise ValueError(f"{name} must be one number for each layer, got {count}")
        if not all(0 <= share < 1 for share in self.activation_sparsity_pattern):
            raise ValueError("activation_sparsity_pattern must contain numbers from 0 to below 1")
        if not 0 <= self.altup_active_idx < self.altup_num_inputs <= _MOST_STREAMS:
            raise ValueError(
                f"altup_active_idx must be below altup_num_inputs, and that at most {_MOST_STREAMS}, "
                f"got {self.altup_active_idx} and {self.altup_num_inputs}"
            )


class MLPSizes(Rule):
    """The sizes of MLPs: one number, or one for each layer."""

    keys = ("feed_forward_length",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the sizes."""
        stated = header.values.get(self.keys[0])
        limit = header.largest_dimension
        sizes = stated if isinstance(stated, list) else [stated]
        if not sizes or not all(type(size) is int and 0 < size <= limit for size in sizes):
            raise GGUFError(f"{self.keys[0]} must be from 1 to {limit}")
        return {"intermediate_size": stated}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the size of each layer."""
        return {self.keys[0]: by_layer(config.intermediate_size)}


class AllKeys(SharedKeys):
    """Rule of `num_kv_shared_layers`; llama.cpp requires keys and values in layers that do not read them."""

    def write_tensors(self, config: Any) -> dict[str, Tensor]:
        """Return zeros, which stand for keys and values that models lack."""
        size, heads = config.head_dim, config.num_key_value_heads
        matrix = torch.zeros(1).expand(heads * size, config.hidden_size)
        return {
            f"blk.{layer}.{name}.weight": tensor
            for layer in range(config.first_shared, config.num_hidden_layers)
            for name, tensor in (("attn_k", matrix), ("attn_v", matrix), ("attn_k_norm", torch.zeros(size)))
        }

    def is_kept(self, config: SharedKeysConfig, layer_idx: int, name: str, in_new: bool) -> bool:
        """Return whether a tensor is of keys and values that no layer reads.

        Those of files may be the zeros, so checkpoints that are made of files are without them.
        """
        is_zero = in_new and not name.startswith("self_attn.")
        return not is_zero and super().is_kept(config, layer_idx, name, in_new)


def _table_size(tensors: Mapping[str, TensorInfo]) -> int:
    return tensors["per_layer_token_embd.weight"].shape[0]


GEMMA3N = Architecture(
    gguf="gemma3n",
    config_class=Gemma3nTextConfig,
    rules=(
        *(rule for rule in tables.COMMON_RULES if "feed_forward_length" not in rule.keys),
        MLPSizes(),
        tables.ROTATED_SIZE,
        AllKeys(),
        LayerWindows(Gemma3nTextConfig),
        TwoBasesRope(Gemma3nTextConfig),
        Field("final_logit_softcapping", "final_logit_softcapping", float, required=False),
        Field("embedding_length_per_layer_input", "hidden_size_per_layer_input", limit=largest_dimension),
        Implied("vocab_size_per_layer_input", _table_size),
        Count("altup.active_idx", "altup_active_idx", limit=tensor_count),
        Field("altup.num_inputs", "altup_num_inputs", limit=tensor_count),
        Implied("laurel_rank", lambda tensors: tensors["blk.0.laurel_l.weight"].shape[0]),
        Sparsity(),
        Unwritable("altup_num_inputs", 4),
        Unwritable("altup_correct_scale", True),
        Unwritable("hidden_activation", "gelu_pytorch_tanh"),
        Unwritable("attention_bias", False),
    ),
    rows=(
        *tables.STREAM,
        *PER_LAYER_ROWS,
        *ALTUP_ROWS,
        *tables.SANDWICH_NORMS,
        *tables.ATTENTION,
        *tables.QK_NORMS,
        *tables.GATED_MLP,
    ),
    joined=ALTUP_STACKS,
)


class Gemma3nTextDecoderLayer(SandwichLayer, PerLayerInput):
    """A layer that changes the active stream, and corrects the others. The streams are `(A, B, T, H)`."""

    def __init__(self, config: Gemma3nTextConfig, layer_idx: int) -> None:
        sizes, shares = config.intermediate_size, config.activation_sparsity_pattern
        assert isinstance(sizes, list) and shares is not None
        size, share = sizes[layer_idx], shares[layer_idx]
        mlp = SparseMLP(config, size, share) if share > 0 else MLP(config, intermediate_size=size)
        super().__init__(config, sharing_attention(config, layer_idx), mlp, wide_norm)
        self.altup = AltUp(config)
        self.laurel = Laurel(config)
        self.active, self.scales_active = config.altup_active_idx, config.altup_correct_scale
        self.add_input(config, layer_idx)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the streams to the next layer's."""
        predicted = self.altup.predict(x)
        active = predicted[self.active]
        normed = self.get_submodule("input_layernorm")(active)
        mixed = active + self.branch("self_attn", normed, step, None, "post_attention_layernorm")
        mixed = (mixed + self.laurel(normed)) / math.sqrt(2)
        mapped = mixed + self.branch("mlp", mixed, step, *self.norm_names[2:])
        corrected = self.altup.correct(predicted, mapped)
        active = corrected[self.active]
        added = self.read_input(self.altup.scale(active) if self.scales_active else active, step)
        return torch.cat((corrected[:1], corrected[1:] + added))


class Gemma3nTextModel(PerLayerModel, TwoRotationsModel, architecture=GEMMA3N):
    """Gemma 3n's text part without a head."""

    altup_projections: AltUpProjections
    altup_unembed_projections: AltUpProjections
    argument_order = (
        *("input_ids", "per_layer_inputs", "attention_mask", "position_ids"),
        *("cache", "inputs_embeds", "use_cache"),
    )

    def add_modules(self, config: Any) -> None:
        """Create the per-layer embeddings, and what makes several streams of one and one of several."""
        super().add_modules(config)
        self.altup_projections = AltUpProjections(config)
        self.altup_unembed_projections = AltUpProjections(config)

    def make_table(self, config: Any, every: int, padding: int | None) -> nn.Module:
        """Create the table of per-layer embeddings, given the size of a row and the token of padding."""
        table = TallEmbedding(config.vocab_size_per_layer_input, every, padding)
        table.scale, table.config = config.hidden_size_per_layer_input**0.5, config
        return table

    def embedding_scale(self, config: Gemma3nTextConfig) -> float:
        """Return the factor on embedded tokens."""
        return math.sqrt(config.hidden_size)

    def make_norm(self, config: Gemma3nTextConfig) -> nn.Module:
        """Create the last norm."""
        return wide_norm(config)

    def make_layer(self, config: Gemma3nTextConfig, layer_idx: int) -> nn.Module:
        """Make a layer."""
        return Gemma3nTextDecoderLayer(config, layer_idx)

    def get_per_layer_inputs(self, input_ids: Tensor | None, inputs_embeds: Tensor | None = None) -> Any:
        """Return the vectors of tokens from the table; None for embeddings, which are not looked up."""
        if input_ids is None:
            return None
        return super().get_per_layer_inputs(
            torch.where(input_ids < self.config.vocab_size_per_layer_input, input_ids, 0)
        )

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Make the streams `(A, B, T, H)` of embedded tokens."""
        others = (self.altup_projections.project(i, x, x) for i in range(len(self.altup_projections)))
        return torch.stack((x, *others))

    def finish(self, x: Tensor) -> Tensor:
        """Return the normalised mean of all streams."""
        first, *others = x
        unembed = self.altup_unembed_projections
        mapped = (unembed.project(i, other, first) for i, other in enumerate(others))
        return super().finish(torch.stack((first, *mapped)).mean(dim=0))

    def list_states(self, stream: Sequence[Tensor], last: Tensor) -> tuple[Tensor, ...]:
        """Return the states that an output lists: the streams."""
        return tuple(stream)


class Gemma3nForCausalLM(heads.CappedForCausalLM, base=Gemma3nTextModel):
    argument_order = ()
