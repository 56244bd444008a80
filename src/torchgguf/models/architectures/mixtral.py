"""Mixtral (Jiang et al. 2024, arXiv 2401.04088): a Mistral with mixtures of experts instead of MLPs."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from torchgguf.models.architectures.llama import LLAMA_RULES
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import LayerWindows, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.weight_map import OtherNames, Stack


@config_dataclass
class MixtralConfig(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults."""

    model_type = "mixtral"
    attribute_map: ClassVar[Mapping[str, str]] = {"num_experts": "num_local_experts"}
    default_theta = 1000000.0

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    num_experts_per_tok: int = 2
    num_local_experts: int = 8
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    router_jitter_noise: float = 0.0

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_local_experts)


_EXPERTS = "layers.{}.block_sparse_moe.experts.{}"

MIXTRAL_STACKS = (
    Stack("layers.{}.mlp.experts.gate_up_proj", (f"{_EXPERTS}.w1.weight", f"{_EXPERTS}.w3.weight")),
    Stack("layers.{}.mlp.experts.down_proj", (f"{_EXPERTS}.w2.weight",)),
)

MIXTRAL = Architecture(
    gguf="llama",
    config_class=MixtralConfig,
    rules=(
        *LLAMA_RULES,
        *tables.expert_rules("num_local_experts", size=None),
        LayerWindows(MixtralConfig),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.INTERLEAVED_ATTENTION, *tables.EXPERTS),
    matches=lambda metadata: bool(metadata.get("llama.expert_count")),
    stacks=MIXTRAL_STACKS,
    other_names=OtherNames({"layers.{}.mlp.gate": "layers.{}.block_sparse_moe.gate"}),
    scales_biases=True,
)


class MixtralModel(DecoderModel, architecture=MIXTRAL):
    """Mixtral without a head."""

    output_class = MoeModelOutputWithPast

    def make_layer(self, config: MixtralConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with experts and the window of all layers."""
        attention = Attention(config, layer_idx, config.sliding_window)
        experts = moe.gated_experts(config, config.num_local_experts, config.intermediate_size)
        router = partial(moe.softmax_then_choose, choices=config.num_experts_per_tok, normalize=True)
        jitter = config.router_jitter_noise
        return DecoderLayer(config, attention, moe.SparseMoeBlock(experts, router, jitter=jitter))


class MixtralForCausalLM(moe.MoeForCausalLM, base=MixtralModel): ...


class MixtralForSequenceClassification(heads.ForSequenceClassification, base=MixtralModel): ...


class MixtralForTokenClassification(heads.ForTokenClassification, base=MixtralModel): ...


class MixtralForQuestionAnswering(heads.ForQuestionAnswering, base=MixtralModel): ...
