"""Short convolutions between two gates, in place of attention (Liquid AI 2025, arXiv 2511.23404).

Shape letters: B batch, T new positions, H size of the stream.
"""

from typing import Any, ClassVar

from torch import Tensor

from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.layer_kinds import FULL, HeadsByLayer, check_layer_types
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Unwritable, largest_dimension
from torchgguf.models.core.weight_map import Row
from torchgguf.nn import CausalConv1d, Linear, Padding

CONVOLUTION = "conv"


@config_dataclass
class ShortConvolutionConfig(DecoderConfig):
    """Config of a model with short convolutions in some layers, and attention in others.

    `conv_L_cache` is the size of the kernels; `layer_types` names the kind of each layer.
    """

    left_out = ("rms_norm_eps",)
    default_theta: ClassVar[float] = 1000000.0

    vocab_size: int = 65536
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 128000
    norm_eps: float = 1e-5
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    conv_bias: bool = False
    conv_L_cache: int = 3  # noqa: N815 (transformers' name)
    layer_types: list[str] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Check the kinds of layers and the size of the kernels."""
        super().__post_init__(*legacy)
        if self.layer_types is None:
            self.layer_types = self.default_layer_types()
        check_layer_types(self.layer_types, (FULL, CONVOLUTION), self.num_hidden_layers)
        if self.conv_L_cache < 1:
            raise ValueError(f"conv_L_cache must be at least 1, got {self.conv_L_cache}")

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        return [FULL] * self.num_hidden_layers

    def has_attention(self, layer_idx: int) -> bool:
        """Return whether a layer has attention instead of a convolution."""
        assert self.layer_types is not None
        return self.layer_types[layer_idx] == FULL


SHORT_CONVOLUTION_RULES = (
    HeadsByLayer(CONVOLUTION),
    Field("shortconv.l_cache", "conv_L_cache", limit=largest_dimension),
    Unwritable("conv_bias", False),
)

SHORT_CONVOLUTION_ROWS = tuple(
    Row(f"blk.{{}}.shortconv.{part}", f"layers.{{}}.conv.{part}") for part in ("conv", "in_proj", "out_proj")
)


class ShortConvolution(RecurrentMixer):
    """`out(c * convolution(b * x))`, where b, c and x are projections of the stream.

    Args:
        config: contains `hidden_size`, `conv_L_cache` and `conv_bias`.
        layer_idx: the number of the layer.
    """

    layer_name: ClassVar[str] = "conv"

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        size, bias = config.hidden_size, config.conv_bias
        self.conv = CausalConv1d(size, config.conv_L_cache, bias=bias)
        self.in_proj = Linear(size, 3 * size, bias=bias)
        self.out_proj = Linear(size, size, bias=bias)

    def mix(self, x: Tensor, step: Step, padding: Padding | None) -> Tensor:
        """Map the stream `(B, T, H)` to what the layer adds to it."""
        b, c, x = self.in_proj(x).transpose(1, 2).chunk(3, dim=1)
        convolved = self.convolve(self.conv, b * x, step, padding)
        mixed: Tensor = self.out_proj((c * convolved).transpose(1, 2))
        return mixed
