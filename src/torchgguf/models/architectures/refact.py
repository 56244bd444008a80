"""Refact (Small Magellanic Cloud AI 2023): a Llama with linear biases (ALiBi) in place of rotary embedding.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.alibi import AlibiModel
from torchgguf.models.blocks.plain_decoder import PLAIN_ROWS, PlainDecoderConfig
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Implied, Only, Unwritable


@config_dataclass
class RefactConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "refact"

    vocab_size: int = 49216
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_key_value_heads: int | None = 1
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5


_UNREAD = (
    "rope_freqs.weight",
    *(f"blk.{{}}.{part}.bias" for part in ("attn_output", "ffn_gate", "ffn_up", "ffn_down")),
)

REFACT = Architecture(
    gguf="refact",
    config_class=RefactConfig,
    rules=(
        *tables.COMMON_RULES,
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
        NO_WINDOW,
        Only("attention.max_alibi_bias", 8.0, "the slopes of Refact require 8.0"),
        Unwritable("hidden_act", "silu"),
    ),
    rows=PLAIN_ROWS,
    unread=_UNREAD,
)


class RefactModel(AlibiModel, architecture=REFACT):
    """Refact without a head."""


class RefactForCausalLM(heads.ForCausalLM, base=RefactModel): ...
