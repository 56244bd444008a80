"""Orion-14B (Chen et al. 2024, arXiv 2401.12246): a Llama whose norms have a mean.

transformers has no such class: models come from GGUF files only, and parameters have Llama's names.
"""

from torch import nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.decoder import layer_norm
from torchgguf.models.blocks.plain_decoder import (
    BIAS_RULES,
    PLAIN_ROWS,
    PlainDecoderConfig,
    PlainDecoderModel,
)
from torchgguf.models.blocks.rope_rule import Rope
from torchgguf.models.blocks.windows import NO_WINDOW
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Unwritable


@config_dataclass
class OrionConfig(PlainDecoderConfig):
    """Fields of all decoders; `rms_norm_eps` is that of the norms, as in Orion's own configs."""

    model_type = "orion"

    vocab_size: int = 84608
    hidden_size: int = 5120
    intermediate_size: int = 15360
    num_hidden_layers: int = 40
    num_attention_heads: int = 40
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5


ORION = Architecture(
    gguf="orion",
    config_class=OrionConfig,
    rules=(
        *tables.SIZE_RULES,
        tables.layer_norm_epsilon("rms_norm_eps"),
        tables.ROTATED_SIZE,
        Rope(),
        *BIAS_RULES,
        NO_WINDOW,
        Unwritable("hidden_act", "silu"),
    ),
    rows=PLAIN_ROWS,
    states_head=True,
)


class OrionModel(PlainDecoderModel, architecture=ORION):
    """Orion without a head."""

    def make_norm(self, config: OrionConfig) -> nn.Module:
        """Create a norm with a mean."""
        return layer_norm(config, "rms_norm_eps")


class OrionForCausalLM(heads.ForCausalLM, base=OrionModel): ...
