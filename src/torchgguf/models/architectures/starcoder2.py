"""StarCoder2 (Lozhkov et al. 2024, arXiv 2402.19173): norms with a mean, MLPs of two layers, biases."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import (
    DecoderLayer,
    DecoderModel,
    DroppedResidualLayer,
    layer_norm,
)
from torchgguf.models.blocks.mlp import PlainMLP
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable
from torchgguf.models.core.weight_map import Row

_norm = partial(layer_norm, eps="norm_epsilon")


@config_dataclass
class Starcoder2Config(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "starcoder2"
    left_out = ("rms_norm_eps",)

    vocab_size: int = 49152
    hidden_size: int = 3072
    intermediate_size: int = 12288
    num_hidden_layers: int = 30
    num_attention_heads: int = 24
    num_key_value_heads: int | None = 2
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.018042
    norm_epsilon: float = 1e-5
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    tie_word_embeddings: bool = True
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    use_bias: bool = True


STARCODER2 = Architecture(
    gguf="starcoder2",
    config_class=Starcoder2Config,
    rules=(
        *tables.SIZE_RULES,
        tables.ROTATED_SIZE,
        Rope(),
        tables.layer_norm_epsilon("norm_epsilon"),
        Unwritable("hidden_act", "gelu_pytorch_tanh"),
        Unwritable("use_bias", True),
        Unwritable("sliding_window", None),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.ATTENTION,
        Row("blk.{}.ffn_up", "layers.{}.mlp.c_fc"),
        Row("blk.{}.ffn_down", "layers.{}.mlp.c_proj"),
    ),
    unread=tables.PLAIN_MLP_FACTORS,
)


class Starcoder2MLP(PlainMLP):
    """An MLP with the names of GPT-2's."""

    projections = ("c_fc", "c_proj")


class Starcoder2Model(DecoderModel, architecture=STARCODER2):
    """StarCoder2 without a head."""

    def make_layer(self, config: Starcoder2Config, layer_idx: int) -> DecoderLayer:
        """Make a layer; the config states whether it uses biases."""
        attention = Attention(config, layer_idx, config.sliding_window, bias=config.use_bias)
        return DroppedResidualLayer(config, attention, Starcoder2MLP(config, bias=config.use_bias), _norm)

    def make_norm(self, config: Any) -> Any:
        """Create the last norm."""
        return _norm(config)

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Apply dropout to embedded tokens."""
        return F.dropout(x, self.config.embedding_dropout, self.training)


class Starcoder2ForCausalLM(heads.ForCausalLM, base=Starcoder2Model): ...


class Starcoder2ForSequenceClassification(heads.ForSequenceClassification, base=Starcoder2Model): ...


class Starcoder2ForTokenClassification(heads.ForTokenClassification, base=Starcoder2Model): ...
