"""LLaDA (Nie et al. 2025, arXiv 2502.09992): a Llama that fills in masked tokens.

Positions see each other in both directions, so there is no cache, and tokens are not generated one by one.
transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.bidirectional import BIDIRECTIONAL_RULES, BidirectionalModel
from torchgguf.models.blocks.plain_decoder import INTERLEAVED_ROWS, PlainDecoderConfig
from torchgguf.models.blocks.rope_rule import Rope, UndividedRope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Implied


@config_dataclass
class LLaDAConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "llada"

    vocab_size: int = 126464
    intermediate_size: int = 12288
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    use_cache: bool = False


LLADA = Architecture(
    gguf="llada",
    config_class=LLaDAConfig,
    rules=(
        *(rule for rule in BIDIRECTIONAL_RULES if not isinstance(rule, Rope)),
        UndividedRope(),
        Implied("attention_bias", tables.in_first_layer("attn_q.bias")),
        NO_WINDOW,
    ),
    rows=INTERLEAVED_ROWS,
    unread=(
        "rope_freqs.weight",
        *(f"blk.{{}}.{part}.bias" for part in ("attn_output", "ffn_gate", "ffn_up", "ffn_down")),
    ),
)


class LLaDAModel(BidirectionalModel, architecture=LLADA):
    """LLaDA without a head."""


class LLaDAForCausalLM(heads.ForCausalLM, base=LLaDAModel): ...
