"""Ministral 3 and the text part of Mistral Small 3 (Mistral AI 2025): a Mistral for long texts.

Beyond the length of its first training, queries grow with the logarithm of their position (as in Llama 4),
so that attention stays sharp.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchgguf.models.architectures.llama import LLAMA_ROWS
from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.rope_rule import YarnFactorsRope, original_length
from torchgguf.models.blocks.windows import LayerWindows, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Unwritable
from torchgguf.nn import Rotation

_TEMPERATURE = "attention.temperature_scale"
_GROWTH = "llama_4_scaling_beta"
_DEFAULT_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    _GROWTH: 0.1,
}


@config_dataclass
class Ministral3Config(UniformlyWindowedConfig):
    """Other defaults than those of all decoders.

    `rope_parameters` contain `llama_4_scaling_beta`, the growth of queries (0: none).
    """

    model_type = "ministral3"

    vocab_size: int = 131072
    intermediate_size: int = 14336
    num_hidden_layers: int = 34
    num_key_value_heads: int | None = 8
    head_dim: int | None = 128
    max_position_embeddings: int = 262144
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 11

    def __post_init__(self, *legacy: Any) -> None:
        """Complete `rope_parameters`: transformers reads growth and length of every kind of scaling."""
        _, theta, older_scaling, *_ = legacy
        if self.rope_parameters is None and not older_scaling:
            stated = {"max_position_embeddings": self.max_position_embeddings}
            if theta is not None:  # without the scaling, it is of the default one
                stated["rope_theta"] = theta
            self.rope_parameters = {**_DEFAULT_ROPE, **stated}
        super().__post_init__(*legacy)
        assert self.rope_parameters is not None
        self.rope_parameters.setdefault(_GROWTH, 0.0)
        self.rope_parameters.setdefault("original_max_position_embeddings", self.max_position_embeddings)


class Ministral3Rope(YarnFactorsRope):
    """Rotary embedding with YaRN's two factors, and the growth of queries."""

    keys = (*YarnFactorsRope.keys, _TEMPERATURE)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling, its factors and the growth."""
        fields = super().read(header)
        growth = header.positive(_TEMPERATURE, float) if header.get(_TEMPERATURE, 0.0) else 0.0
        lengths = {"original_max_position_embeddings": original_length(header)}
        fields["rope_parameters"].update({_GROWTH: growth, **lengths})
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, the factors and the growth."""
        stated = super().write(config)
        if growth := config.rope_parameters[_GROWTH]:
            stated[_TEMPERATURE] = float(growth)
        return stated


MINISTRAL3 = Architecture(
    gguf="mistral3",
    config_class=Ministral3Config,
    rules=(
        *tables.COMMON_RULES,
        Unwritable("hidden_act", "silu"),
        tables.ROTATED_SIZE,
        Ministral3Rope(),
        LayerWindows(Ministral3Config),
    ),
    rows=LLAMA_ROWS,
    scales_biases=True,
)


class Ministral3Model(DecoderModel, architecture=MINISTRAL3):
    """Ministral 3 without a head."""

    def make_layer(self, config: Ministral3Config, layer_idx: int) -> DecoderLayer:
        """Make a layer whose queries have a rotation of their own."""
        attention = Attention(config, layer_idx, config.sliding_window, query_rotation="queries")
        return DecoderLayer(config, attention, MLP(config))

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles; cosines and sines of queries contain their growth, too."""
        rotation = self.rotary_emb(position_ids, dtype)
        parameters = self.config.rope_parameters
        turns = torch.floor(position_ids / parameters["original_max_position_embeddings"])
        growth = (1 + parameters[_GROWTH] * torch.log1p(turns))[..., None, None].to(dtype)
        queries = rotation._replace(cos=rotation.cos * growth, sin=rotation.sin * growth)
        return {"default": rotation, "queries": queries}


class Ministral3ForCausalLM(heads.ForCausalLM, base=Ministral3Model): ...


class Ministral3ForSequenceClassification(heads.ForSequenceClassification, base=Ministral3Model): ...


class Ministral3ForTokenClassification(heads.ForTokenClassification, base=Ministral3Model): ...


class Ministral3ForQuestionAnswering(heads.ForQuestionAnswering, base=Ministral3Model): ...
