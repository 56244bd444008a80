"""StarCoder and SantaCoder (Li et al. 2023, arXiv 2305.06161): a GPT-2 whose heads share keys and values."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.architectures.gpt2 import GPT2Block, GPT2Model, InnerSize
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
)
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Header, Rule, Unwritable, largest_dimension, tensor_count
from torchgguf.models.core.weight_map import HEAD, Row, RowPermutation
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Linear, find_activation


@config_dataclass
class GPTBigCodeConfig(PreTrainedConfig):
    """Sizes and choices; `n_inner` is the width of the MLP, by default four times `n_embd`.

    With `multi_query`, all heads share one key and one value; without it, each has its own. Scores are always
    divided and compared in float32, whatever `attention_softmax_in_fp32` and
    `scale_attention_softmax_in_fp32` state.
    """

    model_type = "gpt_bigcode"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_pytorch_tanh"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    attention_softmax_in_fp32: bool = True
    scale_attention_softmax_in_fp32: bool = True
    multi_query: bool = True
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, *labels: Any) -> None:
        """Check the sizes, and refuse unsupported fields."""
        super().__post_init__(*labels)
        self.num_key_value_heads = self.key_heads
        if self.n_head < 1 or self.n_embd % self.n_head:
            raise ValueError(
                f"n_head must be a positive divisor of n_embd={self.n_embd}, got n_head={self.n_head}"
            )
        if self.add_cross_attention:
            raise ValueError("add_cross_attention=True is unsupported: there is no encoder to attend to")

    @property
    def key_heads(self) -> int:
        """Number of heads of keys and values."""
        return 1 if self.multi_query else self.n_head

    @property
    def inner_size(self) -> int:
        """Width of the MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner


class KeyHeads(Rule):
    """The number of heads of keys and values: one, or as many as of queries."""

    keys = ("attention.head_count_kv",)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number."""
        heads = header.positive("attention.head_count", int)
        if (found := header.get(self.keys[0], heads)) not in (1, heads):
            raise GGUFError(f"{self.keys[0]} must be 1 or {heads}, the number of heads, got {found}")
        return {"multi_query": found == 1}

    def write(self, config: GPTBigCodeConfig) -> dict[str, Any]:
        """Write the number."""
        return {self.keys[0]: config.key_heads}


def _heads_together(config: GPTBigCodeConfig, rows: int) -> Tensor:
    """Return the row of `c_attn` for each row of a file, which stores queries of all heads first."""
    return torch.arange(rows).view(config.n_head, 3, -1).transpose(0, 1).flatten()


GPT_BIGCODE = Architecture(
    gguf="starcoder",
    config_class=GPTBigCodeConfig,
    rules=(
        Field("block_count", "n_layer", limit=tensor_count),
        Field("context_length", "n_positions", limit=largest_dimension),
        Field("embedding_length", "n_embd", limit=largest_dimension),
        InnerSize(),
        Field("attention.head_count", "n_head", limit=largest_dimension),
        KeyHeads(),
        Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        *tables.IMPLIED_RULES,
        Unwritable("activation_function", "gelu_pytorch_tanh"),
        Unwritable("scale_attn_weights", True),
    ),
    rows=(
        Row("token_embd", "wte"),
        Row("position_embd", "wpe"),
        Row("output_norm", "ln_f"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "h.{}.ln_1"),
        Row("blk.{}.attn_qkv", "h.{}.attn.c_attn", applies=lambda config: config.multi_query),
        Row(
            "blk.{}.attn_qkv",
            "h.{}.attn.c_attn",
            RowPermutation(_heads_together),
            applies=lambda config: not config.multi_query,
        ),
        Row("blk.{}.attn_output", "h.{}.attn.c_proj"),
        Row("blk.{}.ffn_norm", "h.{}.ln_2"),
        Row("blk.{}.ffn_up", "h.{}.mlp.c_fc"),
        Row("blk.{}.ffn_down", "h.{}.mlp.c_proj"),
    ),
    unread=tables.PLAIN_MLP_FACTORS,
)


class GPTBigCodeAttention(SelfAttention):
    """Self-attention; one projection computes the queries of all heads, then the one key and value.

    If each head has its own key and value, it computes query, key and value head by head.
    """

    def __init__(self, config: GPTBigCodeConfig, layer_idx: int) -> None:
        self.head_size = config.n_embd // config.n_head
        scaling = self.head_size**-0.5 if config.scale_attn_weights else 1.0
        super().__init__(layer_idx, scaling, config.attn_pdrop)
        self.heads, self.multi_query = config.n_head, config.multi_query
        sizes = config.n_embd + 2 * config.key_heads * self.head_size
        self.c_attn = Linear(config.n_embd, sizes, bias=True)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=True)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, n_embd)` to itself."""
        projected = self.c_attn(x)
        if self.multi_query:
            query, key, value = projected.unflatten(2, (-1, self.head_size)).split((self.heads, 1, 1), dim=2)
        else:
            query, key, value = projected.unflatten(2, (self.heads, 3, -1)).unbind(3)
        output: Tensor = self.resid_dropout(self.c_proj(self.attend(query, key, value, step)))
        return output


class GPTBigCodeMLP(nn.Module):
    """`c_proj(act(c_fc(x)))`."""

    def __init__(self, config: GPTBigCodeConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.inner_size, bias=True)
        self.c_proj = Linear(config.inner_size, config.n_embd, bias=True)
        self.act = find_activation("activation_function", config.activation_function)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., n_embd)` to itself."""
        projected: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return projected


class GPTBigCodeBlock(GPT2Block):
    """A layer of GPT-2, with StarCoder's parts."""

    attention_class = GPTBigCodeAttention
    mlp_class = GPTBigCodeMLP


class GPTBigCodePreTrainedModel(PreTrainedModel, architecture=GPT_BIGCODE):
    """Base of StarCoder's models."""

    base_model_prefix = "transformer"

    def init_weights(self, module: nn.Module) -> None:
        """Initialise a layer; outputs that are added to the stream start smaller in deeper models."""
        super().init_weights(module)
        if isinstance(module, GPTBigCodeAttention | GPTBigCodeMLP):
            std = self.config.initializer_range / math.sqrt(2 * self.config.n_layer)
            nn.init.normal_(module.c_proj.weight, std=std)


class GPTBigCodeModel(GPTBigCodePreTrainedModel, GPT2Model, architecture=GPT_BIGCODE):
    """StarCoder without a head."""

    output_class = BaseModelOutputWithPastAndCrossAttentions
    block_class = GPTBigCodeBlock


class GPTBigCodeForCausalLM(GPTBigCodePreTrainedModel, heads.ForCausalLM, base=GPTBigCodeModel):
    output_class = CausalLMOutputWithCrossAttentions


class GPTBigCodeForSequenceClassification(
    GPTBigCodePreTrainedModel, heads.ForSequenceClassification, base=GPTBigCodeModel
): ...


class GPTBigCodeForTokenClassification(
    GPTBigCodePreTrainedModel, heads.ForTokenClassification, base=GPTBigCodeModel
):
    head_name = "classifier"
