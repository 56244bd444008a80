"""The encoder of T5 (Raffel et al. 2020, arXiv 1910.10683): what embeds texts for retrieval and for images.

The decoder is not here. Checkpoints of whole models load without it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.blocks import tables
from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.outputs import BaseModelOutputWithPastAndCrossAttentions
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Field,
    Header,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import Row
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.nn import AttentionMask, Cache, Embedding, Linear, RMSNorm, bidirectional_mask, find_activation
from torchgguf.nn.relative_bias import RelativeBias

_PLAIN, _GATED = "relu", "gated-gelu"


@config_dataclass
class T5Config(PreTrainedConfig):
    """Sizes and choices, as transformers names them.

    `feed_forward_proj` is the activation of the MLP, after `gated-` if there is a gate. `n_positions` is the
    length of texts in training, not a limit. `scale_decoder_outputs` is of the decoder.
    """

    model_type = "t5"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }
    also_supported = ("is_encoder_decoder",)

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = _PLAIN
    is_encoder_decoder: bool = True
    pad_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    n_positions: int = 512
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None

    def __post_init__(self, num_labels: int | None) -> None:
        """Set the fields that follow from others, and check the sizes."""
        super().__post_init__(num_labels)
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers
        if self.scale_decoder_outputs is None:  # the older name of this choice
            self.scale_decoder_outputs = self.tie_word_embeddings
        self.tie_word_embeddings = True
        if min(self.d_model, self.d_kv, self.d_ff, self.num_heads) < 1:
            raise ValueError(
                "d_model, d_kv, d_ff and num_heads must be above 0, "
                f"got {self.d_model}, {self.d_kv}, {self.d_ff} and {self.num_heads}"
            )

    @property
    def is_gated_act(self) -> bool:
        """Whether the MLP has a gate."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def dense_act_fn(self) -> str:
        """The name of the activation: GELU with a gate is the approximation by tanh."""
        return (
            "gelu_new" if self.feed_forward_proj == _GATED else self.feed_forward_proj.removeprefix("gated-")
        )


class FeedForward(Rule):
    """The form of the MLP, for which there is no key: readers tell it by the tensors."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the form for the tensors of the first layer."""
        return {"feed_forward_proj": _GATED if "enc.blk.0.ffn_gate.weight" in header.tensors else _PLAIN}

    def write(self, config: T5Config) -> dict[str, Any]:
        """Refuse every other form."""
        if (form := config.feed_forward_proj) not in (_PLAIN, _GATED):
            raise ValueError(
                f"GGUF does not support feed_forward_proj={form!r}: readers assume {_PLAIN!r} or {_GATED!r}"
            )
        return {}


_LAYER = "encoder.block.{}.layer"
_MLP = f"{_LAYER}.1.DenseReluDense"

T5_RULES = (
    Field("block_count", "num_layers", limit=tensor_count),
    Field("context_length", "n_positions"),
    Field("embedding_length", "d_model", limit=largest_dimension),
    Field("feed_forward_length", "d_ff", limit=largest_dimension),
    Field("attention.head_count", "num_heads", limit=largest_dimension),
    Field("attention.key_length", "d_kv", limit=largest_dimension),
    Field("attention.value_length", "d_kv", limit=largest_dimension),
    Field("attention.relative_buckets_count", "relative_attention_num_buckets", limit=largest_dimension),
    Field("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", float),
    Field("attention.layer_norm_epsilon", "layer_norm_epsilon", float, required=False),
    *tables.VOCABULARY_RULES,
    tables.NOT_CAUSAL,
    FeedForward(),
    Unwritable("relative_attention_max_distance", 128),
)

T5_ROWS = (
    Row("token_embd", "shared"),
    Row("enc.output_norm", "encoder.final_layer_norm"),
    Row("enc.blk.{}.attn_norm", f"{_LAYER}.0.layer_norm"),
    *(Row(f"enc.blk.{{}}.attn_{part}", f"{_LAYER}.0.SelfAttention.{part}") for part in "qkvo"),
    Row("enc.blk.{}.attn_rel_b", f"{_LAYER}.0.SelfAttention.relative_attention_bias"),
    Row("enc.blk.{}.ffn_norm", f"{_LAYER}.1.layer_norm"),
    Row("enc.blk.{}.ffn_gate", f"{_MLP}.wi_0"),
    Row("enc.blk.{}.ffn_up", f"{_MLP}.wi_1", applies=lambda config: config.is_gated_act),
    Row("enc.blk.{}.ffn_up", f"{_MLP}.wi", applies=lambda config: not config.is_gated_act),
    Row("enc.blk.{}.ffn_down", f"{_MLP}.wo"),
)

# Beginnings of the names of tensors in checkpoints of whole models.
OF_WHOLE_MODELS = ("decoder.", "encoder.embed_tokens.", "lm_head.")

T5 = Architecture(
    gguf="t5encoder", config_class=T5Config, rules=T5_RULES, rows=T5_ROWS, unused=OF_WHOLE_MODELS
)


def biased(mask: AttentionMask, bias: Tensor) -> AttentionMask:
    """Return a mask of padding with biases on scores `(1, H, T, T)`."""
    if mask.allowed is not None:
        bias = bias.masked_fill(~mask.allowed, -torch.inf)
    return AttentionMask(None, False, bias)


class T5Attention(SelfAttention):
    """Attention whose scores are not scaled.

    Args:
        config: contains the sizes.
        layer_idx: number of the layer.
        has_biases: whether the layer contains biases by relative positions.
    """

    def __init__(self, config: T5Config, layer_idx: int, has_biases: bool) -> None:
        super().__init__(layer_idx, 1.0, config.dropout_rate)
        self.heads = config.num_heads
        size = config.num_heads * config.d_kv
        self.q, self.k, self.v = (Linear(config.d_model, size, bias=False) for _ in range(3))
        self.o = Linear(size, config.d_model, bias=False)
        if has_biases:
            self.relative_attention_bias = RelativeBias(
                config.relative_attention_num_buckets,
                config.num_heads,
                config.relative_attention_max_distance,
            )

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, d_model)` to itself."""
        query, key, value = (layer(x).unflatten(2, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        output: Tensor = self.o(self.attend(query, key, value, step))
        return output


class T5MLP(nn.Module):
    """`wo(act(wi(x)))`, or `wo(act(wi_0(x)) * wi_1(x))` with a gate."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.inputs = ("wi_0", "wi_1") if config.is_gated_act else ("wi",)
        for name in self.inputs:
            self.add_module(name, Linear(config.d_model, config.d_ff, bias=False))
        self.wo = Linear(config.d_ff, config.d_model, bias=False)
        self.act = find_activation("feed_forward_proj", config.dense_act_fn)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(..., d_model)` to itself."""
        first, *others = (getattr(self, name)(x) for name in self.inputs)
        inner: Tensor = self.act(first)
        for other in others:
            inner = inner * other
        output: Tensor = self.wo(self.dropout(inner))
        return output


class T5Residual(nn.Module):
    """A part of a layer, which reads the normalised stream and adds to it."""

    def __init__(self, config: T5Config, name: str, part: nn.Module) -> None:
        super().__init__()
        self.part_name = name
        self.add_module(name, part)
        self.layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, d_model)` to the next part's."""
        output: Tensor = self.dropout(getattr(self, self.part_name)(self.layer_norm(x), step))
        return x + output


class T5Block(nn.Module):
    """A layer: attention, then an MLP."""

    def __init__(self, config: T5Config, attention: T5Attention) -> None:
        super().__init__()
        parts = {"SelfAttention": attention, "DenseReluDense": T5MLP(config)}
        self.layer = nn.ModuleList(T5Residual(config, name, part) for name, part in parts.items())

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, d_model)` to the next layer's."""
        for part in self.layer:
            x = part(x, step)
        return x


class T5Stack(nn.Module):
    """The layers and the last norm, and the embedding of the model."""

    def __init__(self, config: T5Config, embedding: nn.Module, attentions: Iterable[T5Attention]) -> None:
        super().__init__()
        self.embed_tokens = embedding
        self.block = nn.ModuleList(T5Block(config, attention) for attention in attentions)
        self.final_layer_norm = RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)


class T5EncoderModel(LayerStack, architecture=T5):
    """The encoder. It has no cache: every position sees all others."""

    base_model_prefix = "transformer"
    output_class = BaseModelOutputWithPastAndCrossAttentions
    argument_order = ("input_ids", "attention_mask", "inputs_embeds")

    def __init__(self, config: T5Config, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        self.shared: nn.Module = Embedding(config.vocab_size, config.d_model)
        attentions = (self.make_attention(config, i) for i in range(config.num_layers))
        self.encoder = T5Stack(config, self.shared, attentions)
        self.post_init()

    def make_attention(self, config: Any, layer_idx: int) -> T5Attention:
        """Make the attention of a layer: the first one contains the biases of all layers."""
        return T5Attention(config, layer_idx, has_biases=layer_idx == 0)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers."""
        return self.encoder.block

    def norm(self, x: Tensor) -> Tensor:
        """Return the last states."""
        states: Tensor = self.encoder.dropout(self.encoder.final_layer_norm(x))
        return states

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.shared

    def set_input_embeddings(self, module: nn.Module) -> None:
        """Replace the module that looks up tokens."""
        self.shared = module
        self.tie_weights()

    def tie_weights(self) -> None:
        """Use one embedding under both of its names."""
        self.encoder.embed_tokens = self.shared

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Map embedded tokens to the input of the first layer."""
        embedded: Tensor = self.encoder.dropout(x)
        return embedded

    def make_masks(
        self, attention_mask: Tensor | None, x: Tensor, cache: Cache | None
    ) -> Mapping[int | None, AttentionMask]:
        """Create one mask for all layers, with the biases of relative positions."""
        biases = self.encoder.block[0].get_submodule("layer.0.SelfAttention.relative_attention_bias")
        return {None: biased(bidirectional_mask(attention_mask, x), biases(x.shape[1]).to(x))}

    def forward(  # type: ignore[override]  # transformers has this order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **options: Any,
    ) -> Any:
        """Run the layers; return an `output_class`.

        `LayerStack.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, T)`, zero at padding on either side.
            inputs_embeds: `(B, T, d_model)`, instead of `input_ids`.
            cache: must be None.
            use_cache: has no effect.
            options: more arguments of `LayerStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        if cache is not None:
            raise ValueError(f"cache must be None: {type(self).__name__} sees all positions at once")
        return super().forward(
            input_ids, attention_mask, inputs_embeds=inputs_embeds, use_cache=False, **options
        )

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer: the wider its input, the smaller its weights."""
        factor, width = self.config.initializer_factor, self.config.d_model
        if isinstance(module, T5Attention):
            for name, fan_in in {"q": width * self.config.d_kv, "k": width, "v": width}.items():
                nn.init.normal_(module.get_parameter(f"{name}.weight"), std=factor * fan_in**-0.5)
            nn.init.normal_(module.o.weight, std=factor * module.o.in_features**-0.5)
        elif isinstance(module, T5MLP):
            for layer in module.children():
                if isinstance(layer, Linear):
                    nn.init.normal_(layer.weight, std=factor * layer.in_features**-0.5)
        elif isinstance(module, RelativeBias):
            nn.init.normal_(module.weight, std=factor * width**-0.5)
        elif isinstance(module, Embedding):
            nn.init.normal_(module.weight, std=factor)
