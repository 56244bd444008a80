"""Phi-3, Phi-3.5 and Phi-4 (Abdin et al. 2024, arXiv 2404.14219, 2412.08905): fused projections, LongRoPE."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import FusedAttention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import FusedMLP
from torchgguf.models.blocks.rope_rule import ORIGINAL, PartialRope, original_length
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import LayerWindows, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Unwritable
from torchgguf.models.core.weight_map import Row


@config_dataclass
class Phi3Config(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults.

    With a `rope_type` of "longrope", texts longer than `original_max_position_embeddings` use another set of
    frequencies. Queries of all layers see `sliding_window` positions, unless it is None.
    """

    model_type = "phi3"
    rotates_parts = True
    old_rope_types: ClassVar[Mapping[str, str]] = {"su": "longrope", "yarn": "longrope"}

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    resid_pdrop: float = 0.0
    embd_pdrop: float = 0.0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 32000
    pad_token_id: int | None = 32000

    def __post_init__(self, *legacy: Any) -> None:
        """Refuse values that transformers refuses or ignores for Phi-3."""
        super().__post_init__(*legacy)
        assert self.rope_parameters is not None
        if (kind := self.rope_parameters["rope_type"]) not in ("default", "longrope"):
            raise ValueError(f"rope_type {kind!r} is not supported for Phi-3; these are: default, longrope")
        if self.embd_pdrop:
            raise ValueError(f"embd_pdrop={self.embd_pdrop} is unsupported: Phi-3 never drops embeddings")


class Phi3Rope(PartialRope):
    """Rotary embedding of a part of each head; files always store the original length."""

    told_by_tensors = True
    kinds = ("none", "linear", "longrope")

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling, the rotated part of a head and the original length."""
        return {**super().read(header), "original_max_position_embeddings": original_length(header)}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, the rotated size and the original length."""
        return {**super().write(config), ORIGINAL: config.original_max_position_embeddings}


PHI3 = Architecture(
    gguf="phi3",
    config_class=Phi3Config,
    rules=(
        *tables.COMMON_RULES,
        Unwritable("hidden_act", "silu"),
        Phi3Rope(),
        LayerWindows(Phi3Config, always_stated=True),
    ),
    rows=(
        *tables.STREAM,
        *tables.PRE_NORMS,
        *tables.FUSED_ATTENTION,
        *tables.MLP_OUTPUT,
        Row("blk.{}.ffn_up", "layers.{}.mlp.gate_up_proj"),
    ),
)


class Phi3Attention(FusedAttention):
    """Attention with one projection for queries, keys and values."""

    def __init__(self, config: Phi3Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx, config.sliding_window)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Attend as `Attention` does, then apply dropout."""
        attended: Tensor = self.resid_dropout(super().forward(x, step))
        return attended


class Phi3MLP(FusedMLP):
    """MLP with one projection for gate and up, and dropout."""

    def __init__(self, config: Phi3Config) -> None:
        super().__init__(config)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Map as `FusedMLP` does, then apply dropout."""
        dropped: Tensor = self.resid_dropout(super().forward(x))
        return dropped


class Phi3Model(DecoderModel, architecture=PHI3):
    """Phi-3 without a head."""

    def make_layer(self, config: Phi3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer with fused projections and the window of all layers."""
        return DecoderLayer(config, Phi3Attention(config, layer_idx), Phi3MLP(config))


class Phi3ForCausalLM(heads.ForCausalLM, base=Phi3Model): ...


class Phi3ForSequenceClassification(heads.ForSequenceClassification, base=Phi3Model): ...


class Phi3ForTokenClassification(heads.ForTokenClassification, base=Phi3Model): ...
