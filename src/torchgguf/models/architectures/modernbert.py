"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): an encoder with windows in two layers of three.

Granite Embedding's English models and rerankers of GTE are such models.
"""

from collections.abc import Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, NormNames, layer_norm
from torchgguf.models.blocks.encoder import EncoderStack
from torchgguf.models.blocks.encoder_rules import (
    ClassifierPooling,
    GateActivation,
    Labels,
    SymmetricWindows,
    UnscaledBasesRope,
    layers_by_period,
)
from torchgguf.models.blocks.layer_kinds import FULL, check_layer_types
from torchgguf.models.blocks.outputs import BaseModelOutput
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import SLIDING
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Unwritable
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import Embedding, LayerNorm, Linear, RotaryEmbedding, Rotation, find_activation


@config_dataclass
class ModernBertConfig(RotaryConfig):
    """Sizes and choices, as transformers names them.

    Every third layer sees all positions, others see `local_attention` positions, half of them on either side;
    `layer_types` states the kind of each layer. `rope_parameters` contain those of both kinds.
    """

    model_type = "modernbert"
    default_thetas: ClassVar[Mapping[str, float]] = {FULL: 160000.0, SLIDING: 10000.0}

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    initializer_cutoff_factor: float = 2.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    pad_token_id: int | None = 50283
    eos_token_id: int | list[int] | None = 50282
    bos_token_id: int | None = 50281
    cls_token_id: int | None = 50281
    sep_token_id: int | None = 50282
    attention_bias: bool = False
    attention_dropout: float = 0.0
    layer_types: list[str] | None = None
    local_attention: int = 128
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    deterministic_flash_attn: bool = False
    sparse_prediction: bool = False
    sparse_pred_ignore_index: int = -100
    tie_word_embeddings: bool = True
    global_attn_every_n_layers: InitVar[int | None] = None
    global_rope_theta: InitVar[float | None] = None
    local_rope_theta: InitVar[float | None] = None

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in the kinds of layers, replace the fields of older configs, and check the heads."""
        *others, period, full, sliding = legacy
        stated = self.rope_parameters or {}
        for kind, theta in ((FULL, full), (SLIDING, sliding)):
            if theta is not None:
                stated = {**stated, kind: {"rope_theta": theta, **(stated.get(kind) or {})}}
        self.rope_parameters = stated or None
        super().__post_init__(*others)
        if self.layer_types is None:
            self.layer_types = layers_by_period(self.num_hidden_layers, 3 if period is None else period)
        check_layer_types(self.layer_types, (FULL, SLIDING), self.num_hidden_layers)
        if self.num_attention_heads < 1 or self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"num_attention_heads must divide half of hidden_size={self.hidden_size}, "
                f"got {self.num_attention_heads}"
            )
        if self.classifier_pooling not in ("cls", "mean"):
            raise ValueError(f"classifier_pooling must be 'cls' or 'mean', got {self.classifier_pooling!r}")

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_heads(self) -> int:
        """The number of heads of keys and values."""
        return self.num_attention_heads


MODERNBERT = Architecture(
    gguf="modern-bert",
    config_class=ModernBertConfig,
    rules=(
        *tables.ENCODER_RULES,
        Field("context_length", "max_position_embeddings"),
        tables.layer_norm_epsilon("norm_eps"),
        Field("attention.layer_norm_rms_epsilon", "norm_eps", float, required=False),  # as converted files
        ClassifierPooling(),
        Labels(),
        SymmetricWindows(),
        GateActivation(),
        UnscaledBasesRope(ModernBertConfig),
        *(Unwritable(name, False) for name in ("norm_bias", "attention_bias", "mlp_bias")),
    ),
    rows=(
        Row("token_embd", "embeddings.tok_embeddings"),
        Row("token_embd_norm", "embeddings.norm"),
        Row("blk.{}.attn_norm", "layers.{}.attn_norm"),
        Row("blk.{}.attn_qkv", "layers.{}.attn.Wqkv"),
        Row("blk.{}.attn_output", "layers.{}.attn.Wo"),
        Row("blk.{}.ffn_norm", "layers.{}.mlp_norm"),
        Row("blk.{}.ffn_up", "layers.{}.mlp.Wi"),
        Row("blk.{}.ffn_down", "layers.{}.mlp.Wo"),
        Row("output_norm", "final_norm"),
        Row("cls", "head.dense"),
        Row("cls.norm", "head.norm"),
        Row("cls.output", "classifier"),
    ),
    classifier=("head.dense", "head.norm", "classifier"),
    unused=("head.", "decoder."),
)


class ModernBertEmbeddings(nn.Module):
    """The embeddings of tokens, normalised."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        padding = config.pad_token_id if config.pad_token_id in range(config.vocab_size) else None
        self.tok_embeddings: nn.Module = Embedding(config.vocab_size, config.hidden_size, padding)
        self.norm = LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
        self.drop = nn.Dropout(config.embedding_dropout)

    def with_kinds(self, x: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Return embedded tokens as they are: there are no kinds."""
        return x

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Normalise embedded tokens."""
        embedded: Tensor = self.drop(self.norm(x))
        return embedded


class ModernBertAttention(Attention):
    """Attention with one projection for queries, keys and values."""

    layer_name = "attn"

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the one projection."""
        self.Wqkv = Linear(hidden_size, 3 * self.query_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, `(B, T, H * D)` each."""
        query, key, value = self.Wqkv(x).chunk(3, dim=-1)
        return query, key, value

    def add_output(self, hidden_size: int, bias: bool) -> None:
        """Create the last projection."""
        self.Wo = Linear(self.query_size, hidden_size, bias=bias)
        self.out_drop = nn.Dropout(self.dropout)

    def project_output(self, mixed: Tensor) -> Tensor:
        """Map weighted means of values to `(B, T, hidden_size)`."""
        output: Tensor = self.out_drop(self.Wo(mixed))
        return output


class ModernBertMLP(nn.Module):
    """`Wo(act(a) * b)`, where a and b are the halves of `Wi(x)`."""

    layer_name = "mlp"

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.Wi = Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias)
        self.act = find_activation("hidden_activation", config.hidden_activation)
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        gate, up = self.Wi(x).chunk(2, dim=-1)
        output: Tensor = self.Wo(self.drop(self.act(gate) * up))
        return output


class ModernBertLayer(DecoderLayer):
    """A layer with norms by ModernBERT's names."""

    norm_names = NormNames("attn_norm", None, "mlp_norm", None)


class FirstModernBertLayer(DecoderLayer):
    """The first layer, whose attention reads what the embeddings have normalised."""

    norm_names = NormNames(None, None, "mlp_norm", None)


class ModernBertModel(EncoderStack, architecture=MODERNBERT):
    """ModernBERT without a head."""

    base_model_prefix = "model"
    norm_name = "final_norm"
    ends_with_context = False
    output_class = BaseModelOutput
    argument_order = ("input_ids", "attention_mask", "position_ids", "inputs_embeds")

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        reaches = {FULL: None, SLIDING: config.local_attention // 2}
        self.windows = frozenset(reaches[kind] for kind in config.layer_types)
        self.embeddings = ModernBertEmbeddings(config)
        self.layers = nn.ModuleList()
        for i, kind in enumerate(config.layer_types):
            attention = ModernBertAttention(
                config, i, reaches[kind], bias=config.attention_bias, rotation=kind
            )
            layer = ModernBertLayer if i else FirstModernBertLayer
            self.layers.append(layer(config, attention, ModernBertMLP(config), _norm))
        self.final_norm = _norm(config)
        self.rotary_emb = nn.ModuleDict(
            {
                kind: RotaryEmbedding(config.rope_parameters[kind], config.head_dim)
                for kind in sorted({*config.layer_types})
            }
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        table: nn.Module = self.embeddings.tok_embeddings
        return table

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the positions, once for each kind of layer."""
        return {kind: rotary(position_ids, dtype) for kind, rotary in self.rotary_emb.items()}


def _norm(config: Any) -> nn.Module:
    return layer_norm(config, "norm_eps", config.norm_bias)


class PredictionHead(nn.Module):
    """The layer before that which scores: `norm(act(dense(x)))`."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, config.classifier_bias)
        self.act = find_activation("classifier_activation", config.classifier_activation)
        self.norm = _norm(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        output: Tensor = self.norm(self.act(self.dense(x)))
        return output


class WithPrediction(heads.HeadWithDropout):
    """A model whose scores are those of states that a `PredictionHead` has mapped."""

    head_name = "classifier"

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.head = PredictionHead(config)
        self.head.apply(self.init_weights)

    def prepare(self, states: Tensor) -> Tensor:
        """Map last states to what the layer reads."""
        return super().prepare(self.head(states))


class ModernBertForSequenceClassification(
    WithPrediction, heads.ForPooledClassification, base=ModernBertModel
):
    def pool(self, encoded: Any, attention_mask: Tensor | None) -> Tensor:
        """Return the state of the first token, or the mean of all, as the config's `classifier_pooling`."""
        states: Tensor = encoded.last_hidden_state
        if self.config.classifier_pooling == "cls":
            return states[:, 0]
        mask = states.new_ones(states.shape[:2]) if attention_mask is None else attention_mask
        mask = mask.to(states)[..., None]
        return (states * mask).sum(1) / mask.sum(1)


class ModernBertForTokenClassification(
    WithPrediction, heads.ForTokenClassification, base=ModernBertModel
): ...


class ModernBertForQuestionAnswering(WithPrediction, heads.ForQuestionAnswering, base=ModernBertModel):
    argument_order = ("input_ids", "attention_mask", "position_ids", "start_positions", "end_positions")
