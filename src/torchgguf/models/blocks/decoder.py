"""The decoder that llama-like models share: layers of a mixer and an MLP, each behind a norm.

Shape letters: B batch, T new positions.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import Embedding, RMSNorm, RotaryEmbedding, Rotation


@config_dataclass
class DecoderConfig(RotaryConfig):
    """Fields of all llama-like models; defaults differ."""

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    attention_dropout: float = 0.0

    def __post_init__(self, *legacy: Any) -> None:
        """Replace sizes that are None, and check the heads."""
        super().__post_init__(*legacy)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if min(self.num_attention_heads, self.num_key_value_heads) < 1 or (
            self.num_attention_heads % self.num_key_value_heads
        ):
            heads = (
                f"{self.num_attention_heads} attention heads",
                f"{self.num_key_value_heads} key/value heads",
            )
            raise ValueError(
                "num_attention_heads must be a positive multiple of num_key_value_heads, "
                f"got {heads[0]} and {heads[1]}"
            )
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embedding, got {self.head_dim}")

    @property
    def windows(self) -> list[int | None]:
        """Window of each layer: the number of positions that a query sees; None: all."""
        return [self.window_of(i) for i in range(self.num_hidden_layers)]

    def window_of(self, layer_idx: int) -> int | None:
        """Return the window of a layer: the number of positions that a query sees; None: all."""
        return None


class DecoderLayer(nn.Module):
    """A mixer of positions and an MLP: each reads the normalised stream and adds its output to it.

    Either is any module that maps `(x, step)` to a tensor of x's shape; its `layer_name` is the attribute
    that holds it.

    Args:
        config: contains `hidden_size` and `rms_norm_eps`.
        mixer: combines positions; None: the layer is an MLP only.
        mlp: maps each position; None: the layer is a mixer only.
        norm: class of the norms.
    """

    def __init__(self, config: Any, mixer: Any, mlp: Any, norm: type[RMSNorm] = RMSNorm) -> None:
        super().__init__()
        self.mixer_name = self.mlp_name = None
        if mixer is not None:
            self.mixer_name = mixer.layer_name
            self.add_module(mixer.layer_name, mixer)
        if mlp is not None:
            self.mlp_name = mlp.layer_name
            self.add_module(mlp.layer_name, mlp)
        if mixer is not None:
            self.input_layernorm = norm(config.hidden_size, eps=config.rms_norm_eps)
        if mlp is not None:
            self.post_attention_layernorm = norm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        if self.mixer_name is not None:
            x = x + getattr(self, self.mixer_name)(self.input_layernorm(x), step)
        if self.mlp_name is not None:
            x = x + getattr(self, self.mlp_name)(self.post_attention_layernorm(x), step)
        return x


class DecoderModel(LayerStack):
    """Embedding, layers and the last norm. Subclasses define `make_layer`."""

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        # The row of padding is not trained, as in transformers. Files may name an id outside the vocabulary.
        padding = config.pad_token_id
        if padding is not None and padding not in range(config.vocab_size):
            padding = None
        self.embed_tokens: nn.Module = Embedding(config.vocab_size, config.hidden_size, padding)
        self.layers = nn.ModuleList(self.make_layer(config, i) for i in range(config.num_hidden_layers))
        self.windows = {part.window for part in self.layers.modules() if isinstance(part, SelfAttention)}
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim)
        self.post_init()

    def make_layer(self, config: Any, layer_idx: int) -> nn.Module:
        """Create a layer: any module that maps `(x, step)` to a tensor of x's shape."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.embed_tokens

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the new positions, once for all layers."""
        return {"default": self.rotary_emb(position_ids, dtype)}
