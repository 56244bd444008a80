"""Dream (Ye et al. 2025, arXiv 2508.15487): a Qwen2 that fills in masked tokens.

Positions see each other in both directions, so there is no cache, and tokens are not generated one by one.
transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.bidirectional import BIDIRECTIONAL_RULES, BidirectionalModel
from torchgguf.models.blocks.plain_decoder import BIAS_RULES, PLAIN_ROWS, PlainDecoderConfig
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class DreamConfig(PlainDecoderConfig):
    """Fields of all decoders, with other defaults."""

    model_type = "dream"

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 131072
    attention_bias: bool = True
    use_cache: bool = False


DREAM = Architecture(
    gguf="dream",
    config_class=DreamConfig,
    rules=(*BIDIRECTIONAL_RULES, *BIAS_RULES, NO_WINDOW),
    rows=PLAIN_ROWS,
    unread=("output.bias",),
)


class DreamModel(BidirectionalModel, architecture=DREAM):
    """Dream without a head."""


class DreamForCausalLM(heads.ForCausalLM, base=DreamModel): ...
