"""Mamba 2 (Dao and Gu 2024, arXiv 2405.21060) and Codestral Mamba: layers of one mixer each."""

import math
from typing import Any

from torchgguf.models.architectures.mamba import (
    MAMBA_RULES,
    MambaCausalLMOutput,
    MambaForCausalLM,
    MambaModel,
    MambaOutput,
)
from torchgguf.models.blocks import tables
from torchgguf.models.blocks.mamba2 import (
    UNLIMITED_STEPS,
    Expand,
    Mamba2Mixer,
    Mamba2Options,
    mamba2_rows,
    mamba2_rules,
)
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.models.pretrained.config import PreTrainedConfig


@config_dataclass
class Mamba2Config(PreTrainedConfig):
    """Sizes and choices.

    `residual_in_fp32` keeps the stream in float32, whatever the dtype of the model. `time_step_limit` bounds
    step sizes; other `time_step_…` fields describe how new models are initialized.
    """

    model_type = "mamba2"

    num_heads: int = 128
    head_dim: int = 64
    vocab_size: int = 32768
    hidden_size: int = 4096
    state_size: int = 128
    num_hidden_layers: int = 64
    layer_norm_epsilon: float = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    expand: int = 2
    conv_kernel: int = 4
    n_groups: int = 8
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    initializer_range: float = 0.1
    residual_in_fp32: bool = True
    time_step_rank: int | str = "auto"
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    time_step_limit: list[float] | tuple[float, ...] = (0.0, math.inf)
    rescale_prenorm_residual: bool = False
    chunk_size: int = 256

    def __post_init__(self, num_labels: int | None) -> None:
        """Set what follows from other fields, and check the sizes of mixers."""
        super().__post_init__(num_labels)
        if self.time_step_rank == "auto":
            self.time_step_rank = math.ceil(self.hidden_size / 16)
        self.time_step_limit = [*self.time_step_limit]
        size = self.expand * self.hidden_size
        if self.num_heads * self.head_dim != size:
            raise ValueError(
                f"num_heads times head_dim must be expand times hidden_size, {size}, got {self.num_heads} "
                f"and {self.head_dim}"
            )

    @property
    def layer_types(self) -> list[str]:
        """The kinds of the layers: all are recurrent."""
        return ["linear_attention"] * self.num_hidden_layers


MAMBA2 = Architecture(
    gguf="mamba2",
    config_class=Mamba2Config,
    rules=(
        *tables.with_own(
            MAMBA_RULES, *mamba2_rules("num_heads", "head_dim", "n_groups", "state_size", "conv_kernel")
        ),
        Expand("expand"),
        UNLIMITED_STEPS,
    ),
    rows=(
        Row("token_embd", "embeddings"),
        Row("output_norm", "norm_f"),
        Row("output", HEAD),
        Row("blk.{}.attn_norm", "layers.{}.norm"),
        *mamba2_rows("mixer"),
    ),
)


class Mamba2Output(MambaOutput):
    """The same, of a Mamba 2."""


class Mamba2CausalLMOutput(MambaCausalLMOutput):
    """The same, of a Mamba 2."""


class Mamba2Model(MambaModel, architecture=MAMBA2):
    """Mamba 2 without a head."""

    output_class = Mamba2Output

    def make_mixer(self, config: Any, layer_idx: int) -> Any:
        """Make the mixer of a layer."""
        least, largest = config.time_step_limit
        options = Mamba2Options(
            config.num_heads,
            config.head_dim,
            config.n_groups,
            config.state_size,
            config.conv_kernel,
            config.layer_norm_epsilon,
            config.hidden_act,
            config.use_conv_bias,
            config.use_bias,
            (least, largest),
            (config.time_step_min, config.time_step_max, config.time_step_floor),
        )
        return Mamba2Mixer(config.hidden_size, layer_idx, options)


class Mamba2ForCausalLM(MambaForCausalLM, base=Mamba2Model):
    """Predicts the next token."""

    output_class = Mamba2CausalLMOutput
    argument_order = (
        *("input_ids", "inputs_embeds", "cache", "labels"),
        *("output_hidden_states", "return_dict", "use_cache", "attention_mask", "logits_to_keep"),
    )
