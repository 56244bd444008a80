"""BERT (Devlin et al. 2018, arXiv 1810.04805), as an encoder: what embeds texts.

Only the model that classifies texts has a pooler, and only GGUF files of such models store one. Files of
RoBERTa and DistilBERT are of this architecture, too: llama.cpp's converter removes the positions that they do
not use, and its rerankers are of that model, whose layers RoBERTa has by other names.
"""

from typing import Any

from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.encoder import EncoderEmbeddings, EncoderStack, WithPooler
from torchgguf.models.blocks.encoder_rules import Labels
from torchgguf.models.blocks.stack import check_positions
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Unwritable, largest_dimension
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


BERT = Architecture(
    gguf="bert",
    config_class=BertConfig,
    rules=(
        *tables.ENCODER_RULES,
        Field("context_length", "max_position_embeddings", limit=largest_dimension),
        *tables.KINDS_RULES,
        Labels(),
        Unwritable("hidden_act", "gelu"),
    ),
    rows=(
        *tables.EMBEDDED_KINDS,
        Row("position_embd", "embeddings.position_embeddings"),
        Row("blk.{}.attn_q", "encoder.layer.{}.attention.self.query"),
        Row("blk.{}.attn_k", "encoder.layer.{}.attention.self.key"),
        Row("blk.{}.attn_v", "encoder.layer.{}.attention.self.value"),
        Row("blk.{}.attn_output", "encoder.layer.{}.attention.output.dense"),
        Row("blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
        Row("blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense"),
        Row("blk.{}.ffn_down", "encoder.layer.{}.output.dense"),
        Row("blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm"),
        Row("cls", "pooler.dense"),
        Row("cls.output", "classifier"),
    ),
    classifier=("pooler.dense", "classifier"),
    unused=("pooler.", "cls."),
)


class BertEmbeddings(EncoderEmbeddings):
    """The sum of the embeddings of tokens, of their kinds and of positions, normalised."""

    def add_positions(self, config: BertConfig) -> None:
        """Create the embeddings of positions."""
        self.position_embeddings: nn.Module = Embedding(config.max_position_embeddings, config.hidden_size)
        self.known = config.max_position_embeddings

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add the embeddings of positions, and normalise."""
        check_positions(position_ids, self.known, "max_position_embeddings")
        positions: Tensor = self.position_embeddings(position_ids)
        return super().forward(x + positions.to(x.dtype), position_ids)


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
    encoder: Any

    def __init__(self, config: BertConfig, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.embeddings = BertEmbeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(BertLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()

    @property
    def layers(self) -> nn.ModuleList:
        """The layers."""
        layers: nn.ModuleList = self.encoder.layer
        return layers


class BertWithPooler(WithPooler, BertModel):
    """BERT without a head, but with a pooler."""

    argument_order = BertModel.argument_order


class BertForSequenceClassification(heads.ForPooledClassification, base=BertWithPooler):
    head_name = "classifier"


class BertForTokenClassification(heads.ForTokenClassification, base=BertModel):
    head_name = "classifier"


class BertForQuestionAnswering(heads.ForQuestionAnswering, base=BertModel): ...
