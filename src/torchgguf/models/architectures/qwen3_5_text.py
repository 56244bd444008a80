"""The text part of Qwen3.5 (2026): three layers of the gated delta rule, then one of gated attention."""

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.gated_delta import rows
from torchgguf.models.blocks.gated_delta.config import RULES, GatedDeltaConfig
from torchgguf.models.blocks.gated_delta.drafting import Drafting
from torchgguf.models.blocks.gated_delta.model import GatedDeltaModel
from torchgguf.models.blocks.rope_rule import SectionedRope
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class Qwen3_5TextConfig(GatedDeltaConfig):
    """Fields beyond those of all models with the gated delta rule, and other defaults."""

    model_type = "qwen3_5_text"

    vocab_size: int = 248320
    intermediate_size: int = 12288
    num_key_value_heads: int | None = 4


QWEN3_5_TEXT = Architecture(
    gguf="qwen35",
    config_class=Qwen3_5TextConfig,
    rules=(
        *RULES,
        SectionedRope(),
    ),
    rows=(*rows.SEPARATE_ROWS, *tables.GATED_MLP),
    kept_forms=rows.KEPT_FORMS,
    unused=("visual.",),
)


class Qwen3_5TextModel(GatedDeltaModel, architecture=QWEN3_5_TEXT):
    """Qwen3.5 without a head."""


class Qwen3_5ForCausalLM(Drafting, heads.ForCausalLM, base=Qwen3_5TextModel): ...


class Qwen3_5TextForSequenceClassification(heads.ForSequenceClassification, base=Qwen3_5TextModel): ...
