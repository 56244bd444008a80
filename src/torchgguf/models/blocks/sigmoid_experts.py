"""The config fields of models whose experts are chosen by sigmoids with a bias, as DeepSeek-V3's are."""

from typing import Any

from torchgguf.models.blocks import moe
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class SigmoidExpertsConfig(DecoderConfig):
    """Fields of `moe.sigmoid_experts`; the first `first_k_dense_replace` layers have a plain MLP instead."""

    moe_intermediate_size: int = 1408
    n_shared_experts: int = 1
    n_routed_experts: int = 64
    num_experts_per_tok: int = 6
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 0
    norm_topk_prob: bool = True
    output_router_logits: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Check the number of experts and their groups."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.n_routed_experts)
        moe.check_groups(self.n_group, self.topk_group, self.n_routed_experts, self.num_experts_per_tok)
