"""T5 (Raffel et al. 2020, arXiv 1910.10683): whole models, and the encoder alone, which embeds texts."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks import tables
from torchgguf.models.blocks.encoder_decoder.model import EncoderDecoderModel, ForConditionalGeneration
from torchgguf.models.blocks.encoder_decoder.stack import RelativeStack
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import (
    Assumed,
    Count,
    Field,
    Header,
    Rule,
    Unwritable,
    largest_dimension,
    tensor_count,
)
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.models.pretrained.config import PreTrainedConfig
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Embedding

_PLAIN, _GATED = "relu", "gated-gelu"


@config_dataclass
class T5Config(PreTrainedConfig):
    """Sizes and choices, as transformers names them.

    `feed_forward_proj` is the activation of the MLP, after `gated-` if there is a gate. `n_positions` is the
    length of texts in training, not a limit. `scale_decoder_outputs` is whether the decoder's states are
    multiplied by `d_model ** -0.5` before the head, by default as `tie_word_embeddings`. A head of its own is
    used if the checkpoint contains one and states are not scaled, whatever `tie_word_embeddings` says.
    """

    model_type = "t5"
    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }

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
    decoder_start_token_id: int | None = None
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
        if min(self.d_model, self.d_kv, self.d_ff, self.num_heads) < 1:
            raise ValueError(
                "d_model, d_kv, d_ff and num_heads must be above 0, "
                f"got {self.d_model}, {self.d_kv}, {self.d_ff} and {self.num_heads}"
            )

    @property
    def layers_with_tensors(self) -> int:
        """The number of layers of the longer one of encoder and decoder."""
        return max(self.num_layers, (self.num_decoder_layers or 0) if self.is_encoder_decoder else 0)

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


class OwnHead(Rule):
    """Whether there is a head of its own, for which there is no key. Only then states are not scaled."""

    def read(self, header: Header) -> dict[str, Any]:
        """Return the fields for the tensors."""
        is_tied = "output.weight" not in header.tensors
        return {"tie_word_embeddings": is_tied, "scale_decoder_outputs": is_tied}

    def write(self, config: T5Config) -> dict[str, Any]:
        """Refuse other combinations."""
        if config.scale_decoder_outputs != config.tie_word_embeddings:
            raise ValueError(
                f"GGUF does not support scale_decoder_outputs={config.scale_decoder_outputs} with "
                f"tie_word_embeddings={config.tie_word_embeddings}: readers assume that both are equal"
            )
        return {}

    def complete(self, config: T5Config, names: Collection[str]) -> None:
        """Use the head of a checkpoint, unless it must be a copy of the embedding."""
        config.tie_word_embeddings = bool(config.scale_decoder_outputs) or f"{HEAD}.weight" not in names


def _attention(gguf: str, hf: str) -> tuple[Row, ...]:
    return tuple(Row(f"{gguf}_{part}", f"{hf}.{part}") for part in "qkvo")


def _mlp(gguf: str, hf: str) -> tuple[Row, ...]:
    inner = f"{hf}.DenseReluDense"
    return (
        Row(f"{gguf}.ffn_norm", f"{hf}.layer_norm"),
        Row(f"{gguf}.ffn_gate", f"{inner}.wi_0"),
        Row(f"{gguf}.ffn_up", f"{inner}.wi_1", applies=lambda config: config.is_gated_act),
        Row(f"{gguf}.ffn_up", f"{inner}.wi", applies=lambda config: not config.is_gated_act),
        Row(f"{gguf}.ffn_down", f"{inner}.wo"),
    )


def _self_attention(gguf: str, hf: str) -> tuple[Row, ...]:
    return (
        Row(f"{gguf}.attn_norm", f"{hf}.layer_norm"),
        *_attention(f"{gguf}.attn", f"{hf}.SelfAttention"),
        Row(f"{gguf}.attn_rel_b", f"{hf}.SelfAttention.relative_attention_bias"),
    )


_RULES = (
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
    FeedForward(),
    Unwritable("relative_attention_max_distance", 128),
)
T5_ENCODER_RULES = (*_RULES, Assumed("is_encoder_decoder", False), tables.NOT_CAUSAL)
T5_RULES = (
    *_RULES,
    Assumed("is_encoder_decoder", True),
    OwnHead(),
    Field("decoder_block_count", "num_decoder_layers", required=False, limit=tensor_count),
    Count("decoder_start_token_id", "decoder_start_token_id", required=False),
)

_ENCODER, _DECODER = "encoder.block.{}.layer", "decoder.block.{}.layer"

T5_ENCODER_ROWS = (
    Row("token_embd", "shared"),
    *_self_attention("enc.blk.{}", f"{_ENCODER}.0"),
    *_mlp("enc.blk.{}", f"{_ENCODER}.1"),
    Row("enc.output_norm", "encoder.final_layer_norm"),
)
T5_ROWS = (
    *T5_ENCODER_ROWS,
    *_self_attention("dec.blk.{}", f"{_DECODER}.0"),
    Row("dec.blk.{}.cross_attn_norm", f"{_DECODER}.1.layer_norm"),
    *_attention("dec.blk.{}.cross_attn", f"{_DECODER}.1.EncDecAttention"),
    *_mlp("dec.blk.{}", f"{_DECODER}.2"),
    Row("dec.output_norm", "decoder.final_layer_norm"),
    Row("output", HEAD),
)

# Names of tensors in checkpoints that no class has: copies of the embedding, heads of other classes, and
# biases that old checkpoints contain and nothing reads. The encoder alone reads checkpoints of whole models.
_COPIES = ("encoder.embed_tokens.", "decoder.embed_tokens.", f"{HEAD}.")
UNUSED_BY_ENCODER = ("decoder.", *_COPIES)
UNUSED_BY_WHOLE = (*_COPIES, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.")
UNREAD = ("dec.blk.{}.cross_attn_rel_b.weight",)


def is_encoder_alone(config: T5Config) -> bool:
    """Return whether a checkpoint with this config contains an encoder alone."""
    named = config.architectures or ()
    return not config.is_encoder_decoder or any(name.endswith("EncoderModel") for name in named)


T5 = Architecture(
    gguf="t5",
    config_class=T5Config,
    rules=T5_RULES,
    rows=T5_ROWS,
    unused=UNUSED_BY_WHOLE,
    unread=UNREAD,
    of_config=lambda config: not is_encoder_alone(config),
)
T5_ENCODER = Architecture(
    gguf="t5encoder",
    config_class=T5Config,
    rules=T5_ENCODER_RULES,
    rows=T5_ENCODER_ROWS,
    unused=UNUSED_BY_ENCODER,
    of_config=is_encoder_alone,
)

_make_stack = partial(RelativeStack, shares_biases=True)


class T5EncoderModel(PreTrainedModel, architecture=T5_ENCODER):
    """The encoder. It has no cache: every position sees all others."""

    task = "base"
    base_model_prefix = "transformer"
    make_stack: ClassVar[Any] = _make_stack

    def __init__(self, config: T5Config, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        config.is_encoder_decoder = False
        self.shared: nn.Module = Embedding(config.vocab_size, config.d_model)
        self.encoder = type(self).make_stack(
            config,
            self.shared,
            config.num_layers,
            is_decoder=False,
            attn_implementation=attn_implementation,
        )
        self.post_init()

    def get_encoder(self) -> Any:
        """Return the encoder."""
        return self.encoder

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

    def init_weights(self, module: nn.Module) -> None:
        """Initialize the embedding."""
        if isinstance(module, Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_factor)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the layers; return a `BaseModelOutputWithPastAndCrossAttentions`.

        Args:
            input_ids: tokens `(B, T)`; None with `inputs_embeds`.
            attention_mask: `(B, T)`, zero at padding on either side.
            inputs_embeds: `(B, T, d_model)`, instead of `input_ids`.
            options: more arguments of `RelativeStack.forward`.

        Raises:
            ValueError: arguments contradict each other, are unsupported, or are of wrong shapes.
        """
        return self.encoder(input_ids, attention_mask, inputs_embeds=inputs_embeds, **options)


class T5Model(EncoderDecoderModel, architecture=T5):
    """The encoder and the decoder, without a head."""

    make_stack = _make_stack


class T5ForConditionalGeneration(ForConditionalGeneration, architecture=T5):
    """The encoder and the decoder, which predicts tokens."""

    make_stack = _make_stack

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits; see `T5Config` for the scale."""
        if self.config.scale_decoder_outputs:
            states = states * self.config.d_model**-0.5
        return super().score(states)
