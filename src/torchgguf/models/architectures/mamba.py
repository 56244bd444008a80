"""Mamba (Gu and Dao 2023, arXiv 2312.00752): layers of selective state spaces, nothing else."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import heads, tables
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, NormNames, NormOfStream
from torchgguf.models.blocks.mamba import (
    MambaMixer,
    MambaSizes,
    in_dtype_of,
    mixer_rows,
    mixer_rules,
    resolved_rank,
)
from torchgguf.models.blocks.outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Constant,
    Field,
    Harmless,
    Stated,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.nn import RMSNorm


@config_dataclass
class MambaConfig(PreTrainedConfig):
    """Sizes and choices.

    `residual_in_fp32` keeps the stream in float32, whatever the dtype of the model. The `time_step_…` fields,
    except for the rank, and `rescale_prenorm_residual` describe how new models are initialized.
    """

    model_type = "mamba"

    vocab_size: int = 50280
    hidden_size: int = 768
    state_size: int = 16
    num_hidden_layers: int = 32
    layer_norm_epsilon: float = 1e-5
    pad_token_id: int | None = 0
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    expand: int = 2
    intermediate_size: int | None = None
    conv_kernel: int = 4
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    initializer_range: float = 0.1
    residual_in_fp32: bool = True
    time_step_rank: int | str = "auto"
    time_step_scale: float = 1.0
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_init_scheme: str = "random"
    time_step_floor: float = 1e-4
    rescale_prenorm_residual: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, num_labels: int | None) -> None:
        """Set the sizes that follow from others."""
        super().__post_init__(num_labels)
        self.intermediate_size = self.expand * self.hidden_size
        self.time_step_rank = resolved_rank("time_step_rank", self.time_step_rank, self.hidden_size)

    @property
    def layer_types(self) -> list[str]:
        """The kinds of the layers: all are recurrent."""
        return ["linear_attention"] * self.num_hidden_layers

    def sizes(self) -> MambaSizes:
        """Return the sizes of mixers."""
        assert isinstance(self.time_step_rank, int) and self.intermediate_size is not None
        return MambaSizes(
            self.hidden_size, self.intermediate_size, self.state_size, self.time_step_rank, self.conv_kernel
        )


MAMBA_RULES = (
    Field("block_count", "num_hidden_layers", limit=tensor_count),
    Field("embedding_length", "hidden_size", limit=largest_dimension),
    Field("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", float),
    *mixer_rules("conv_kernel", "state_size", "time_step_rank", "expand"),
    Stated("context_length", 1 << 20),  # there is no longest text
    # There are neither heads nor MLPs.
    *(Stated(key, 0) for key in ("attention.head_count", "feed_forward_length")),
    Harmless(("attention.head_count_kv", "attention.recurrent_layers")),
    *tables.IMPLIED_RULES,
    Unwritable("hidden_act", "silu"),
    Unwritable("use_bias", False),
    Unwritable("use_conv_bias", True),
)

MAMBA_ROWS = (
    Row("token_embd", "embeddings"),
    Row("output_norm", "norm_f"),
    Row("output", HEAD),
    Row("blk.{}.attn_norm", "layers.{}.norm"),
    *mixer_rows("mixer"),
)

_NORMED = "ssm.dt_b_c_rms"

MAMBA = Architecture(
    gguf="mamba",
    config_class=MambaConfig,
    rules=(*MAMBA_RULES, Constant(_NORMED, False, "norms inside of mixers are of another model")),
    rows=MAMBA_ROWS,
    matches=lambda metadata: not metadata.get(f"mamba.{_NORMED}"),
)


class MambaOutput(BaseModelOutputWithPast):
    """The same, of a Mamba; it has no `attentions`."""


class MambaCausalLMOutput(CausalLMOutputWithPast):
    """The same, of a Mamba; it has no `attentions`."""


class MambaLayer(DecoderLayer):
    """A layer that is a mixer only, and adds to the stream in float32 if the config says so."""

    norm_names = NormNames("norm", None, None, None)

    def __init__(self, config: Any, mixer: nn.Module, norm: NormOfStream) -> None:
        super().__init__(config, mixer, None, norm)
        self.residual_in_fp32 = config.residual_in_fp32

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the stream with the output of the mixer."""
        return (x.float() if self.residual_in_fp32 else x) + output


def stream_norm(config: Any) -> nn.Module:
    """Create a norm of the stream: a `NormOfStream`."""
    return RMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)


class MambaModel(DecoderModel, architecture=MAMBA):
    """Mamba without a head."""

    base_model_prefix = "backbone"
    embedding_name = "embeddings"
    norm_name = "norm_f"
    output_class = MambaOutput
    argument_order = (
        *("input_ids", "inputs_embeds", "cache", "use_cache"),
        *("output_hidden_states", "return_dict", "attention_mask"),
    )

    def untrained_row(self, config: MambaConfig) -> None:
        """Return None: all embeddings are trained."""

    def make_norm(self, config: MambaConfig) -> nn.Module:
        """Create the last norm."""
        return stream_norm(config)

    def make_rotary(self, config: MambaConfig) -> None:
        """Return None: nothing is rotated."""

    def make_layer(self, config: MambaConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer."""
        return MambaLayer(config, self.make_mixer(config, layer_idx), stream_norm)

    def make_mixer(self, config: Any, layer_idx: int) -> MambaMixer:
        """Make the mixer of a layer."""
        options = {"conv_bias": config.use_conv_bias, "bias": config.use_bias}
        return MambaMixer(config.sizes(), layer_idx, config.hidden_act, **options)

    def list_states(self, stream: Sequence[Tensor], last: Tensor) -> tuple[Tensor, ...]:
        """Return the output of every layer, and that of the last one normalised, as transformers does."""
        return (*stream[1:], last)

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer: step sizes between `time_step_min` and `time_step_max`, as in the paper."""
        super().init_weights(module)
        if not isinstance(module, MambaMixer):
            return
        config = self.config
        bound = config.time_step_scale * config.time_step_rank**-0.5
        if config.time_step_init_scheme == "constant":
            nn.init.constant_(module.dt_proj.weight, bound)
        else:
            nn.init.uniform_(module.dt_proj.weight, -bound, bound)
        shortest, longest = (math.log(bound) for bound in (config.time_step_min, config.time_step_max))
        with torch.no_grad():
            bias = module.dt_proj.bias
            step_size = bias.uniform_(shortest, longest).exp().clamp(min=config.time_step_floor)
            bias.copy_(step_size + (-(-step_size).expm1()).log())  # the inverse of softplus
            if config.rescale_prenorm_residual:
                module.out_proj.weight /= math.sqrt(config.num_hidden_layers)


class MambaForCausalLM(heads.ForCausalLM, base=MambaModel):
    """Predicts the next token."""

    output_class = MambaCausalLMOutput
    argument_order = (
        *("input_ids", "attention_mask", "inputs_embeds", "cache", "labels"),
        *("output_hidden_states", "return_dict", "use_cache", "logits_to_keep"),
    )

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits, in float32."""
        return super().score(in_dtype_of(self.head, states)).float()
