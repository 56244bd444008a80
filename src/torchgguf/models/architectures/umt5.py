"""UMT5 (Chung et al. 2023, arXiv 2304.09151): a T5 whose layers have biases of their own."""

from functools import partial

from torchgguf.models.architectures.t5 import (
    T5_ENCODER_ROWS,
    T5_ENCODER_RULES,
    T5_ROWS,
    T5_RULES,
    UNREAD,
    UNUSED_BY_ENCODER,
    UNUSED_BY_WHOLE,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
    is_encoder_alone,
)
from torchgguf.models.blocks.encoder_decoder.stack import RelativeStack
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import config_dataclass


@config_dataclass
class UMT5Config(T5Config):
    """Other defaults than T5's."""

    model_type = "umt5"

    vocab_size: int = 250112
    d_ff: int = 1024
    num_layers: int = 8
    num_heads: int = 6
    feed_forward_proj: str = "gated-gelu"
    decoder_start_token_id: int | None = 0


_MARKER = "enc.blk.1.attn_rel_b.weight"

UMT5 = Architecture(
    gguf="t5",
    config_class=UMT5Config,
    rules=T5_RULES,
    rows=T5_ROWS,
    marker=_MARKER,
    unused=UNUSED_BY_WHOLE,
    unread=UNREAD,
    of_config=lambda config: not is_encoder_alone(config),
)
UMT5_ENCODER = Architecture(
    gguf="t5encoder",
    config_class=UMT5Config,
    rules=T5_ENCODER_RULES,
    rows=T5_ENCODER_ROWS,
    marker=_MARKER,
    unused=UNUSED_BY_ENCODER,
    of_config=is_encoder_alone,
)

_make_stack = partial(RelativeStack, shares_biases=False)


class UMT5EncoderModel(T5EncoderModel, architecture=UMT5_ENCODER):
    """The encoder. It has no cache: every position sees all others."""

    make_stack = _make_stack


class UMT5Model(T5Model, architecture=UMT5):
    """The encoder and the decoder, without a head."""

    make_stack = _make_stack


class UMT5ForConditionalGeneration(T5ForConditionalGeneration, architecture=UMT5):
    """The encoder and the decoder, which predicts tokens."""

    make_stack = _make_stack
