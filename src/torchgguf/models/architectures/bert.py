"""BERT (Devlin et al. 2018, arXiv 1810.04805), as an encoder: what embeds texts.

Only the model that classifies texts has a pooler: GGUF files store none. Files of RoBERTa and DistilBERT
are of this architecture, too: llama.cpp's converter removes the positions that they do not use.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.container import TensorInfo
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.encoder import EncoderStack
from torchgguf.models.blocks.stack import check_positions
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Implied, Unwritable, largest_dimension, tensor_count
from torchgguf.models.core.weight_map import Row
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.nn import Embedding, LayerNorm, Linear, find_activation


@config_dataclass
class BertConfig(PreTrainedConfig):
    """Sizes and choices, as transformers names them; `type_vocab_size` is the number of kinds of tokens."""

    model_type = "bert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, *labels: Any) -> None:
        """Check the sizes, and refuse unsupported fields."""
        super().__post_init__(*labels)
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must be a positive divisor of hidden_size={self.hidden_size}, "
                f"got {self.num_attention_heads}"
            )
        if self.is_decoder or self.add_cross_attention:
            raise ValueError("is_decoder=True and add_cross_attention=True are unsupported")


def _kinds(tensors: Mapping[str, TensorInfo]) -> int:
    """Return the number of kinds of tokens: there may be none."""
    table = tensors.get("token_types.weight")
    return 0 if table is None else table.shape[0]


BERT = Architecture(
    gguf="bert",
    config_class=BertConfig,
    rules=(
        Field("block_count", "num_hidden_layers", limit=tensor_count),
        Field("context_length", "max_position_embeddings", limit=largest_dimension),
        Field("embedding_length", "hidden_size", limit=largest_dimension),
        Field("feed_forward_length", "intermediate_size", limit=largest_dimension),
        Field("attention.head_count", "num_attention_heads", limit=largest_dimension),
        Field("attention.head_count_kv", "num_attention_heads", required=False, limit=largest_dimension),
        tables.layer_norm_epsilon("layer_norm_eps"),
        Implied("type_vocab_size", _kinds),
        *tables.ENCODER_RULES,
        Unwritable("hidden_act", "gelu"),
    ),
    rows=(
        Row("token_embd", "embeddings.word_embeddings"),
        Row("position_embd", "embeddings.position_embeddings"),
        Row("token_types", "embeddings.token_type_embeddings"),
        Row("token_embd_norm", "embeddings.LayerNorm"),
        Row("blk.{}.attn_q", "encoder.layer.{}.attention.self.query"),
        Row("blk.{}.attn_k", "encoder.layer.{}.attention.self.key"),
        Row("blk.{}.attn_v", "encoder.layer.{}.attention.self.value"),
        Row("blk.{}.attn_output", "encoder.layer.{}.attention.output.dense"),
        Row("blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
        Row("blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense"),
        Row("blk.{}.ffn_down", "encoder.layer.{}.output.dense"),
        Row("blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm"),
    ),
    unused=("pooler.", "cls."),
)


class BertEmbeddings(nn.Module):
    """The sum of the embeddings of tokens, of their kinds and of positions, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        size, padding = config.hidden_size, config.pad_token_id
        if padding is not None and padding not in range(config.vocab_size):
            padding = None
        self.word_embeddings: nn.Module = Embedding(config.vocab_size, size, padding)
        self.position_embeddings: nn.Module = Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings: nn.Module | None = None
        if config.type_vocab_size:
            self.token_type_embeddings = Embedding(config.type_vocab_size, size)
        self.LayerNorm = LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.known = config.max_position_embeddings

    def with_kinds(self, x: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Add the embeddings of the kinds `(B, T)`, or of kind 0, to embedded tokens."""
        if self.token_type_embeddings is None:
            return x
        kinds = x.new_zeros((1, 1), dtype=torch.long) if token_type_ids is None else token_type_ids
        added: Tensor = x + self.token_type_embeddings(kinds).to(x.dtype)
        return added

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add the embeddings of positions, and normalise."""
        check_positions(position_ids, self.known, "max_position_embeddings")
        positions: Tensor = self.position_embeddings(position_ids)
        embedded: Tensor = self.dropout(self.LayerNorm(x + positions.to(x.dtype)))
        return embedded


class BertSelfAttention(SelfAttention):
    """Attention before its last projection."""

    def __init__(self, config: BertConfig, layer_idx: int) -> None:
        size, self_heads = config.hidden_size, config.num_attention_heads
        super().__init__(layer_idx, (size // self_heads) ** -0.5, config.attention_probs_dropout_prob)
        self.heads = self_heads
        self.query = Linear(size, size)
        self.key = Linear(size, size)
        self.value = Linear(size, size)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)) for layer in (self.query, self.key, self.value)
        )
        return self.attend(query, key, value, step)


class BertResidual(nn.Module):
    """The last projection of a part, added to the stream, normalised."""

    def __init__(self, config: BertConfig, inner_size: int) -> None:
        super().__init__()
        self.dense = Linear(inner_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, inner: Tensor, x: Tensor) -> Tensor:
        """Map what a part computed, and the stream, to the next stream."""
        output: Tensor = self.LayerNorm(self.dropout(self.dense(inner)) + x)
        return output


class BertAttention(nn.Module):
    """Attention and its last projection."""

    def __init__(self, config: BertConfig, layer_idx: int) -> None:
        super().__init__()
        self.self = BertSelfAttention(config, layer_idx)
        self.output = BertResidual(config, config.hidden_size)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream to the next one."""
        output: Tensor = self.output(self.self(x, step), x)
        return output


class BertIntermediate(nn.Module):
    """The first half of the MLP."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.act = find_activation("hidden_act", config.hidden_act)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., hidden_size)` to `(..., intermediate_size)`."""
        inner: Tensor = self.act(self.dense(x))
        return inner


class BertLayer(nn.Module):
    """Attention and MLP, each behind the other, each with a norm after its sum."""

    def __init__(self, config: BertConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention = BertAttention(config, layer_idx)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config, config.intermediate_size)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        x = self.attention(x, step)
        output: Tensor = self.output(self.intermediate(x), x)
        return output


class BertModel(EncoderStack, architecture=BERT):
    """BERT without a head and without a pooler."""

    base_model_prefix = "bert"

    def __init__(self, config: BertConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.embeddings = BertEmbeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(BertLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()


class BertPooler(nn.Module):
    """Maps the state of the first token to that of the text."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, T, hidden_size)` to `(B, hidden_size)`."""
        return torch.tanh(self.dense(x[:, 0]))


class BertWithPooler(BertModel):
    """BERT without a head, but with a pooler."""

    argument_order = BertModel.argument_order

    def __init__(self, config: BertConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.pooler = BertPooler(config)
        self.pooler.apply(self.init_weights)

    def forward(self, *args: Any, return_dict: bool | None = True, **options: Any) -> Any:
        """Run the model as `BertModel` does, and the pooler."""
        output = super().forward(*args, **options)
        output.pooler_output = self.pooler(output.last_hidden_state)
        return output.to_tuple() if return_dict is False else output


class BertForSequenceClassification(heads.ForPooledClassification, base=BertWithPooler):
    head_name = "classifier"


class BertForTokenClassification(heads.ForTokenClassification, base=BertModel):
    head_name = "classifier"


class BertForQuestionAnswering(heads.ForQuestionAnswering, base=BertModel): ...
