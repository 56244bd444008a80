"""Phi-3.5-MoE (Abdin et al. 2024, arXiv 2404.14219): norms with a mean, experts that SparseMixer chooses."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchgguf.models.architectures.mixtral import MIXTRAL_STACKS
from torchgguf.models.architectures.phi3 import Phi3Rope
from torchgguf.models.blocks import heads, moe, tables
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.decoder import DecoderLayer, DecoderModel, layer_norm
from torchgguf.models.blocks.outputs import MoeModelOutputWithPast
from torchgguf.models.blocks.windows import LayerWindows, UniformlyWindowedConfig
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Assumed, Header, Unwritable
from torchgguf.models.core.weight_map import OtherNames
from torchgguf.nn import RotaryEmbedding

_SCALES = ("short_mscale", "long_mscale")
_ORIGINAL = "original_max_position_embeddings"
_CHOICES = 2  # of SparseMixer

_norm = partial(layer_norm, eps="rms_norm_eps")


@config_dataclass
class PhimoeConfig(UniformlyWindowedConfig):
    """Fields beyond those of all decoders, and other defaults.

    With a `rope_type` of "longrope", texts longer than `original_max_position_embeddings` in
    `rope_parameters` use another set of frequencies; `short_mscale` and `long_mscale` there scale cosines and
    sines. Experts whose scores are below the highest by more than the share `2 * router_jitter_noise` have no
    part in the weight of the chosen one.
    """

    model_type = "phimoe"
    default_theta = 1000000.0

    vocab_size: int = 32064
    intermediate_size: int = 6400
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    num_experts_per_tok: int = 2
    num_local_experts: int = 16
    output_router_logits: bool = False
    router_aux_loss_coef: float = 0.001
    router_jitter_noise: float = 0.01
    input_jitter_noise: float = 0.0
    attention_bias: bool = False
    lm_head_bias: bool = False

    def __post_init__(self, *legacy: Any) -> None:
        """Check the scaling, the number of experts and the head."""
        super().__post_init__(*legacy)
        moe.check_choices(self.num_experts_per_tok, self.num_local_experts)
        if self.num_experts_per_tok != _CHOICES:
            raise ValueError(f"num_experts_per_tok must be {_CHOICES}, got {self.num_experts_per_tok}")
        if self.tie_word_embeddings and self.lm_head_bias:
            raise ValueError("lm_head_bias=True is unsupported with tie_word_embeddings=True")
        parameters = self.rope_parameters or {}
        if (kind := parameters["rope_type"]) not in ("default", "longrope"):
            raise ValueError(
                f"rope_type {kind!r} is not supported for Phi-3.5-MoE; these are: default, longrope"
            )
        if kind == "longrope" and (None in (pair := [*map(parameters.get, _SCALES)]) or pair[0] != pair[1]):
            raise ValueError(f"rope_parameters must contain equal {' and '.join(_SCALES)}, got {pair}")


class PhimoeRope(Phi3Rope):
    """Rotary embedding of whole heads; one factor in files is both scales of a config."""

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling."""
        fields = super().read(header)
        parameters = fields["rope_parameters"]
        if (factor := parameters.pop("attention_factor", None)) is not None:
            parameters.update(dict.fromkeys(_SCALES, factor))
        return {"rope_parameters": parameters}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the original length."""
        parameters = _as_others(config.rope_parameters)
        original = parameters.get(_ORIGINAL, config.max_position_embeddings)
        stated = {"rope_parameters": parameters, "head_dim": config.head_dim, _ORIGINAL: original}
        return super().write(SimpleNamespace(**stated))


def _as_others(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return `rope_parameters` in which the scales have the name that other models use."""
    others = {name: value for name, value in parameters.items() if name not in _SCALES}
    return {**others, "attention_factor": parameters[_SCALES[0]]} if _SCALES[0] in parameters else others


PHIMOE = Architecture(
    gguf="phimoe",
    config_class=PhimoeConfig,
    rules=(
        *tables.COMMON_RULES,
        Unwritable("hidden_act", "silu"),
        PhimoeRope(),
        LayerWindows(PhimoeConfig, always_stated=True),
        *tables.expert_rules("num_local_experts", size=None),
        # llama.cpp (src/models/phimoe.cpp) requires the biases.
        Assumed("attention_bias", True),
        Assumed("lm_head_bias", True),
        Unwritable("router_jitter_noise", 0.01),
    ),
    rows=(*tables.STREAM, *tables.PRE_NORMS, *tables.ATTENTION, *tables.expert_rows(gate="router")),
    stacks=MIXTRAL_STACKS,
    other_names=OtherNames({"layers.{}.mlp.router": "layers.{}.block_sparse_moe.gate"}),
    states_head=True,
)


def sparse_mixer(scores: Tensor, jitter: float, sampling: bool = False) -> tuple[Tensor, Tensor]:
    """Choose two experts, each weighed among those near the highest score: a `Router`.

    In training, SparseMixer (Liu et al. 2024, arXiv 2409.12136) samples by the weights. Of the samples that
    are not the highest, three of four then count a third, so that gradients are those of Heun's method.

    Args:
        scores: of the experts, `(N, E)`.
        jitter: half the share by which scores may be below the highest one and count beside it.
        sampling: whether to sample; otherwise the highest scores are chosen.

    Returns:
        The weights and the indices of the experts of each token, `(N, 2)` each.
    """
    weights, chosen = [], []
    left = scores
    for _ in range(_CHOICES):
        highest, index = left.max(dim=-1, keepdim=True)
        far = (highest - scores) / scores.abs().clamp(min=highest) > 2 * jitter
        near = left.masked_fill(far, -torch.inf)
        best = index
        if sampling:
            index = (near - torch.empty_like(near).exponential_().log()).argmax(dim=-1, keepdim=True)
        weight = near.softmax(dim=-1).gather(-1, index)
        if sampling:
            counts = (index == best) | (torch.rand_like(weight) > 0.75)
            # The gradient is that of the whole weight.
            weight = weight + (weight * torch.where(counts, 0.0, -2 / 3)).detach()
        weights.append(weight)
        chosen.append(index)
        left = left.scatter(-1, index, -torch.inf)
    return torch.cat(weights, dim=-1), torch.cat(chosen, dim=-1)


class PhimoeMoeBlock(moe.SparseMoeBlock):
    """Experts, and the router that chooses among them; it samples in training."""

    gate_name = "router"

    def __init__(self, config: PhimoeConfig) -> None:
        experts = moe.gated_experts(config, config.num_local_experts, config.intermediate_size)
        router = partial(sparse_mixer, jitter=config.router_jitter_noise)
        super().__init__(experts, router, jitter=config.input_jitter_noise)
        self.router_jitter = config.router_jitter_noise

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts by their scores."""
        return sparse_mixer(logits, self.router_jitter, sampling=self.training)


class PhimoeModel(DecoderModel, architecture=PHIMOE):
    """Phi-3.5-MoE without a head."""

    output_class = MoeModelOutputWithPast

    def make_norm(self, config: PhimoeConfig) -> nn.Module:
        """Create the last norm."""
        return _norm(config)

    def make_rotary(self, config: PhimoeConfig) -> nn.Module:
        """Create the module that computes the angles."""
        assert config.rope_parameters is not None and config.head_dim is not None
        return RotaryEmbedding(_as_others(config.rope_parameters), config.head_dim)

    def make_layer(self, config: PhimoeConfig, layer_idx: int) -> DecoderLayer:
        """Make a layer with experts and the window of all layers."""
        attention = Attention(config, layer_idx, config.sliding_window, bias=config.attention_bias)
        return DecoderLayer(config, attention, PhimoeMoeBlock(config), _norm)


class PhimoeForCausalLM(moe.MoeForCausalLM, base=PhimoeModel):
    """Predicts the next token, by a head with a bias if `lm_head_bias` of the config states it."""

    def head_has_bias(self, config: Any) -> bool:
        """Return whether the head has a bias."""
        return cast(bool, config.lm_head_bias)


class PhimoeForSequenceClassification(heads.ForSequenceClassification, base=PhimoeModel): ...
