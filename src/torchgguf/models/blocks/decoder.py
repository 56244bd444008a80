"""The decoder that llama-like models share: layers of a mixer and an MLP, each behind a norm.

Shape letters: B batch, T new positions.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from torchgguf.models.blocks.attention import SelfAttention
from torchgguf.models.blocks.recurrent import RecurrentMixer
from torchgguf.models.blocks.rotary_config import RotaryConfig
from torchgguf.models.blocks.stack import LayerStack
from torchgguf.models.blocks.step import Step
from torchgguf.models.core.config import config_dataclass
from torchgguf.nn import Embedding, LayerNorm, RMSNorm, RotaryEmbedding, Rotation


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
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(f"head_dim must be even and at least 2, got {self.head_dim}")

    @property
    def windows(self) -> list[int | None]:
        """Window of each layer: the number of positions that a query sees; None: all."""
        return [self.window_of(i) for i in range(self.num_hidden_layers)]

    def window_of(self, layer_idx: int) -> int | None:
        """Return the window of a layer: the number of positions that a query sees; None: all."""
        return None


# Creates a norm of the stream, given the config.
NormOfStream = Callable[[Any], nn.Module]


def rms_norm(config: Any) -> nn.Module:
    """Create the norm of most decoders: a `NormOfStream`."""
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


def layer_norm(config: Any, eps: str = "layer_norm_eps", bias: bool = True) -> nn.Module:
    """Create a norm with a mean: a `NormOfStream`, by `functools.partial` if its epsilon has another name."""
    return LayerNorm(config.hidden_size, eps=getattr(config, eps), bias=bias)


class NormNames(NamedTuple):
    """Names of a layer's norms, by their places; None: there is no norm.

    A norm before the mixer or the MLP applies to its input, one after it to its output.
    """

    before_mixer: str | None = "input_layernorm"
    after_mixer: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None


class DecoderLayer(nn.Module):
    """A mixer of positions and an MLP: each reads the stream and adds its output to it.

    Either is any module that maps `(x, step)` to a tensor of x's shape; its `layer_name` is the attribute
    that holds it.

    Args:
        config: contains what `norm` reads.
        mixer: combines positions; None: the layer is an MLP only.
        mlp: maps each position; None: the layer is a mixer only.
        norm: creates the norms.

    Attributes:
        norm_names: of the norms, before and after mixer and MLP.
    """

    norm_names: ClassVar[NormNames] = NormNames()

    def __init__(self, config: Any, mixer: Any, mlp: Any, norm: NormOfStream = rms_norm) -> None:
        super().__init__()
        self.mixer_name = self.mlp_name = None
        if mixer is not None:
            self.mixer_name = mixer.layer_name
            self.add_module(mixer.layer_name, mixer)
        if mlp is not None:
            self.mlp_name = mlp.layer_name
            self.add_module(mlp.layer_name, mlp)
        for name in self.norm_names[:2] if mixer is not None else ():
            if name is not None:
                self.add_module(name, norm(config))
        for name in self.norm_names[2:] if mlp is not None else ():
            if name is not None:
                self.add_module(name, norm(config))

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        before_mixer, after_mixer, before_mlp, after_mlp = self.norm_names
        if self.mixer_name is not None:
            x = self.add(x, self.branch(self.mixer_name, x, step, before_mixer, after_mixer))
        if self.mlp_name is not None:
            x = self.add(x, self.branch(self.mlp_name, x, step, before_mlp, after_mlp))
        return x

    def branch(self, name: str, x: Tensor, step: Step, before: str | None, after: str | None) -> Tensor:
        """Return the output of a mixer or an MLP, with the norms of this name before and after it."""
        if before is not None:
            x = getattr(self, before)(x)
        output: Tensor = getattr(self, name)(x, step)
        if after is not None:
            output = getattr(self, after)(output)
        return output

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the stream with the output of a mixer or an MLP."""
        return x + output


class SandwichLayer(DecoderLayer):
    """A layer with norms before and after mixer and MLP."""

    norm_names = NormNames(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )


class PostNormLayer(DecoderLayer):
    """A layer with norms after mixer and MLP only."""

    norm_names = NormNames(None, "post_attention_layernorm", None, "post_feedforward_layernorm")


class ScaledResidualLayer(DecoderLayer):
    """A layer that multiplies what it adds to the stream by `residual_multiplier` of the config."""

    def __init__(self, config: Any, mixer: Any, mlp: Any, norm: NormOfStream = rms_norm) -> None:
        super().__init__(config, mixer, mlp, norm)
        self.residual_multiplier = config.residual_multiplier

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the stream with the scaled output."""
        scaled: Tensor = output * self.residual_multiplier
        return x + scaled


class DroppedResidualLayer(DecoderLayer):
    """A layer that, in training, drops the share `residual_dropout` of what it adds to the stream."""

    def __init__(self, config: Any, mixer: Any, mlp: Any, norm: NormOfStream = rms_norm) -> None:
        super().__init__(config, mixer, mlp, norm)
        self.residual_dropout = config.residual_dropout

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the stream with what is left of the output."""
        return x + nn.functional.dropout(output, self.residual_dropout, self.training)


class ParallelLayer(DecoderLayer):
    """A layer whose mixer and MLP both read the stream as it enters the layer, by one norm or by two."""

    norm_names = NormNames(before_mlp=None)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to the next layer's."""
        before_mixer, _, before_mlp, _ = self.norm_names
        assert before_mixer and self.mixer_name and self.mlp_name
        normed = getattr(self, before_mixer)(x)
        mixed: Tensor = getattr(self, self.mixer_name)(normed, step)
        if before_mlp is not None:
            normed = getattr(self, before_mlp)(x)
        mapped: Tensor = getattr(self, self.mlp_name)(normed, step)
        return x + mixed + mapped


class DecoderModel(LayerStack):
    """Embedding, layers and the last norm. Subclasses define `make_layer`."""

    embedding_name: ClassVar[str] = "embed_tokens"

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        embedding = Embedding(config.vocab_size, config.hidden_size, self.untrained_row(config))
        embedding.scale = self.embedding_scale(config)
        self.add_module(self.embedding_name, embedding)
        layers = nn.ModuleList(self.make_layer(config, i) for i in range(config.num_hidden_layers))
        self.add_module(self.layers_name, layers)
        self.windows = {part.window for part in layers.modules() if isinstance(part, SelfAttention)}
        self.is_recurrent = any(isinstance(part, RecurrentMixer) for part in layers.modules())
        self.add_module(self.norm_name, self.make_norm(config))
        self.rotary_emb: Any = self.make_rotary(config)
        self.add_modules(config)
        self.post_init()

    def add_modules(self, config: Any) -> None:
        """Create what the model has besides; by default nothing."""

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer of a new model."""
        super().init_weights(module)
        if isinstance(module, RecurrentMixer):
            module.init_parameters()

    def untrained_row(self, config: Any) -> int | None:
        """Return the token whose embedding is not trained, as in transformers: that of padding; or None."""
        padding: int | None = config.pad_token_id
        # Files may name an id outside the vocabulary.
        return padding if padding in range(config.vocab_size) else None

    def embedding_scale(self, config: Any) -> float:
        """Return the factor on embedded tokens."""
        return 1.0

    def make_norm(self, config: Any) -> nn.Module:
        """Create the last norm."""
        return rms_norm(config)

    def make_rotary(self, config: Any) -> nn.Module | None:
        """Create the module that `make_rotations` calls; None: nothing is rotated."""
        return RotaryEmbedding(config.rope_parameters, config.head_dim)

    def make_layer(self, config: Any, layer_idx: int) -> nn.Module:
        """Create a layer: any module that maps `(x, step)` to a tensor of x's shape."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        embedding: nn.Module = getattr(self, self.embedding_name)
        return embedding

    def make_rotations(self, position_ids: Tensor, dtype: torch.dtype) -> Mapping[str, Rotation]:
        """Compute the angles of the new positions, once for all layers."""
        return {} if self.rotary_emb is None else {"default": self.rotary_emb(position_ids, dtype)}
