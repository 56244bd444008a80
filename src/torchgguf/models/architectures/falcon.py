"""Falcon (Almazrouei et al. 2023, arXiv 2311.16867): attention and MLP side by side.

Shape letters: B batch, T new positions, K heads of keys and values, D size of a head.
"""

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderModel, NormNames, ParallelLayer, layer_norm
from torchgguf.models.blocks.outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Field,
    Header,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, Row, RowPermutation
from torchgguf.nn import Linear, find_activation

_SECOND_NORM = "blk.0.attn_norm_2.weight"
_KV_HEADS = "attention.head_count_kv"


@config_dataclass
class FalconConfig(RotaryConfig):
    """Sizes and choices.

    With `new_decoder_architecture` there are `num_kv_heads` heads of keys and values, and as many norms in a
    layer as `num_ln_in_parallel_attn` (2 if it is None); without it, one head if `multi_query` is true.
    """

    model_type = "falcon"

    vocab_size: int = 65024
    hidden_size: int = 4544
    num_hidden_layers: int = 32
    num_attention_heads: int = 71
    num_ln_in_parallel_attn: int | None = None
    layer_norm_epsilon: float = 1e-5
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    num_kv_heads: int | None = None
    alibi: bool = False
    new_decoder_architecture: bool = False
    multi_query: bool = True
    parallel_attn: bool = True
    bias: bool = False
    max_position_embeddings: int = 2048
    bos_token_id: int | None = 11
    eos_token_id: int | list[int] | None = 11
    ffn_hidden_size: int | None = None
    activation: str = "gelu"
    tie_word_embeddings: bool = True

    def __post_init__(self, *legacy: Any) -> None:
        """Replace sizes that are None, and check the heads."""
        super().__post_init__(*legacy)
        if self.num_kv_heads is None:
            self.num_kv_heads = self.num_attention_heads
        if self.ffn_hidden_size is None:
            self.ffn_hidden_size = 4 * self.hidden_size
        if self.alibi or not self.parallel_attn:
            raise ValueError("alibi=True and parallel_attn=False (falcon-rw) are unsupported")
        if (
            min(self.num_attention_heads, self.num_key_value_heads) < 1
            or self.num_attention_heads % self.num_key_value_heads
            or self.hidden_size % (2 * self.num_attention_heads)
        ):
            raise ValueError(
                "num_attention_heads must be a positive multiple of the heads of keys and values, and "
                f"hidden_size={self.hidden_size} one of twice the heads, got num_attention_heads="
                f"{self.num_attention_heads} and {self.num_key_value_heads} heads of keys and values"
            )

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_heads(self) -> int:
        """The number of heads of keys and values."""
        assert self.num_kv_heads is not None
        if self.new_decoder_architecture:
            return self.num_kv_heads
        return 1 if self.multi_query else self.num_attention_heads

    @property
    def has_two_norms(self) -> bool:
        """Whether attention and MLP have a norm each."""
        return self.new_decoder_architecture and self.num_ln_in_parallel_attn in (None, 2)


class Generation(Rule):
    """The kind of a Falcon: files of the newer one have a second norm, or several heads of keys."""

    keys = (_KV_HEADS,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number of heads of keys and values, and conclude the kind."""
        key = _KV_HEADS if _KV_HEADS in header.values else "attention.head_count"
        count, two_norms = header.positive(key, int), _SECOND_NORM in header.tensors
        is_new = two_norms or count > 1
        norms = (2 if two_norms else 1) if is_new else None
        return {
            "num_kv_heads": count,
            "new_decoder_architecture": is_new,
            "num_ln_in_parallel_attn": norms,
        }

    def write(self, config: FalconConfig) -> dict[str, Any]:
        """Write the number of heads."""
        return {_KV_HEADS: config.num_key_value_heads}


class RowLayout(Rule):
    """The name of the order of rows in `attn_qkv`, which the converter states; there is no other."""

    keys = ("tensor_data_layout",)

    def write(self, config: FalconConfig) -> dict[str, Any]:
        """Write the name."""
        return {self.keys[0]: "jploski"}


def _heads_together(config: FalconConfig, rows: int) -> Tensor:
    """Return the row of `query_key_value` for each row of a file: queries of all heads, keys, values."""
    order = torch.arange(rows).view(config.num_key_value_heads, -1, config.head_dim)
    return torch.cat([part.flatten() for part in (order[:, :-2], order[:, -2], order[:, -1])])


FALCON = Architecture(
    gguf="falcon",
    config_class=FalconConfig,
    rules=(
        Field("block_count", "num_hidden_layers", limit=tensor_count),
        Field("context_length", "max_position_embeddings"),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        Field("feed_forward_length", "ffn_hidden_size", limit=largest_dimension),
        Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
        Generation(),
        tables.layer_norm_epsilon("layer_norm_epsilon"),
        *tables.IMPLIED_RULES,
        RowLayout(),
        Rope(),
        Unwritable("activation", "gelu"),
        Unwritable("bias", False),
    ),
    rows=(
        Row("token_embd", "word_embeddings"),
        Row("output_norm", "ln_f"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "h.{}.input_layernorm", applies=lambda config: not config.has_two_norms),
        Row("blk.{}.attn_norm", "h.{}.ln_mlp", applies=lambda config: config.has_two_norms),
        Row("blk.{}.attn_norm_2", "h.{}.ln_attn"),
        Row("blk.{}.attn_qkv", "h.{}.self_attention.query_key_value", RowPermutation(_heads_together)),
        Row("blk.{}.attn_output", "h.{}.self_attention.dense"),
        Row("blk.{}.ffn_up", "h.{}.mlp.dense_h_to_4h"),
        Row("blk.{}.ffn_down", "h.{}.mlp.dense_4h_to_h"),
    ),
    unread=tables.PLAIN_MLP_FACTORS,
)

_norm = partial(layer_norm, eps="layer_norm_epsilon")


class FalconAttention(Attention):
    """Attention with one projection: the queries of a group of heads, their key, their value, next group."""

    layer_name = "self_attention"

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Make the one projection."""
        self.query_key_value = Linear(hidden_size, self.query_size + 2 * self.key_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, as `Attention.project`."""
        groups = self.key_size // self.head_dim
        rows = self.query_key_value(x).unflatten(-1, (groups, -1, self.head_dim))  # (B, T, K, ..., D)
        return rows[..., :-2, :].flatten(2), rows[..., -2, :].flatten(2), rows[..., -1, :].flatten(2)

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the output projection."""
        self.dense = Linear(self.query_size, hidden_size, bias=bias)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means as `Attention` does."""
        output: Tensor = self.dense(mixed)
        return output


class FalconMLP(nn.Module):
    """`dense_4h_to_h(act(dense_h_to_4h(x)))`."""

    layer_name: ClassVar[str] = "mlp"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense_h_to_4h = Linear(config.hidden_size, config.ffn_hidden_size, bias=config.bias)
        self.dense_4h_to_h = Linear(config.ffn_hidden_size, config.hidden_size, bias=config.bias)
        self.act = find_activation("activation", config.activation)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        output: Tensor = self.dense_4h_to_h(self.act(self.dense_h_to_4h(x)))
        return output


class FalconDecoderLayer(ParallelLayer):
    """A layer with one norm for attention and MLP, and dropout of what both add to the stream."""

    def __init__(self, config: FalconConfig, layer_idx: int) -> None:
        attention = FalconAttention(config, layer_idx, bias=config.bias)
        super().__init__(config, attention, FalconMLP(config), _norm)
        self.hidden_dropout = config.hidden_dropout

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        output = super().forward(x, step)
        if self.training and self.hidden_dropout:
            return x + F.dropout(output - x, self.hidden_dropout)
        return output


class FalconTwoNormLayer(FalconDecoderLayer):
    """A layer whose attention and MLP have a norm each."""

    norm_names = NormNames("ln_attn", None, "ln_mlp", None)


class FalconModel(DecoderModel, architecture=FALCON):
    """Falcon without a head."""

    base_model_prefix = "transformer"
    embedding_name = "word_embeddings"
    layers_name = "h"
    norm_name = "ln_f"
    argument_order = ("input_ids", "cache", "attention_mask", "position_ids", "inputs_embeds", "use_cache")
    output_class = BaseModelOutputWithPastAndCrossAttentions

    def __init__(self, config: FalconConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        embedding = self.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        embedding.padding_idx = None  # the row of padding is trained, as in transformers

    def make_layer(self, config: FalconConfig, layer_idx: int) -> FalconDecoderLayer:
        """Make a layer with as many norms as the config states."""
        return (FalconTwoNormLayer if config.has_two_norms else FalconDecoderLayer)(config, layer_idx)

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return _norm(config)


_ORDER = ("input_ids", "cache", "attention_mask", "inputs_embeds", "labels", "use_cache")


class FalconForCausalLM(heads.ForCausalLM, base=FalconModel):
    output_class = CausalLMOutputWithCrossAttentions
    argument_order = (*FalconModel.argument_order[:-1], "labels", "use_cache")


class FalconForSequenceClassification(heads.ForSequenceClassification, base=FalconModel):
    argument_order = _ORDER


class FalconForTokenClassification(heads.ForTokenClassification, base=FalconModel):
    head_name = "classifier"
    argument_order = _ORDER


class FalconForQuestionAnswering(heads.ForQuestionAnswering, base=FalconModel):
    argument_order = ("input_ids", "attention_mask", "inputs_embeds", "start_positions", "end_positions")
