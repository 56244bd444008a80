"""Falcon Mamba (Zuo et al. 2024, arXiv 2410.05355): a Mamba with norms inside of its mixers."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.architectures.mamba import (
    MAMBA_ROWS,
    MAMBA_RULES,
    MambaCausalLMOutput,
    MambaConfig,
    MambaForCausalLM,
    MambaModel,
    MambaOutput,
)
from torchgguf.models.blocks.mamba import NormedMambaMixer
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Constant, Unwritable


@config_dataclass
class FalconMambaConfig(MambaConfig):
    """Fields beyond those of Mamba: `mixer_rms_eps` is the epsilon of the norms inside of mixers."""

    model_type = "falcon_mamba"

    mixer_rms_eps: float = 1e-6


FALCON_MAMBA = Architecture(
    gguf="mamba",
    config_class=FalconMambaConfig,
    rules=(
        *MAMBA_RULES,
        Constant("ssm.dt_b_c_rms", True, "mixers without norms are of another model"),
        Unwritable("mixer_rms_eps", 1e-6),
    ),
    rows=MAMBA_ROWS,
)


class FalconMambaOutput(MambaOutput):
    """The same, of a Falcon Mamba."""


class FalconMambaCausalLMOutput(MambaCausalLMOutput):
    """The same, of a Falcon Mamba."""


class WeightlessRMSNorm(nn.Module):
    """`x / sqrt(mean(x²) + eps)`, computed in float32 and rounded to the input's dtype."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of `(..., hidden_size)`."""
        return F.rms_norm(x.float(), (self.hidden_size,), None, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the size and the epsilon."""
        return f"{self.hidden_size}, eps={self.eps}"


class FalconMambaModel(MambaModel, architecture=FALCON_MAMBA):
    """Falcon Mamba without a head."""

    output_class = FalconMambaOutput

    def make_mixer(self, config: Any, layer_idx: int) -> NormedMambaMixer:
        """Make the mixer of a layer, with norms."""
        options = {"conv_bias": config.use_conv_bias, "bias": config.use_bias}
        norm = partial(WeightlessRMSNorm, eps=config.mixer_rms_eps)
        return NormedMambaMixer(config.sizes(), layer_idx, config.hidden_act, norm, **options)


class FalconMambaForCausalLM(MambaForCausalLM, base=FalconMambaModel):
    """Predicts the next token."""

    output_class = FalconMambaCausalLMOutput
    argument_order = MambaForCausalLM.argument_order
