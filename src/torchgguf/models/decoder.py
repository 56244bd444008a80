"""The decoder that llama-like models share: grouped-query attention, rotary embedding, gated MLP, RMS norms.

Shape letters: B batch, T new positions, S positions seen including the new ones, H query heads, K key/value
heads, D head size.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.generation import GenerationMixin
from torchgguf.models.config import config_dataclass
from torchgguf.models.heads import ModelWithHead
from torchgguf.models.losses import next_token_loss
from torchgguf.models.outputs import CausalLMOutputWithPast
from torchgguf.models.rotary_config import RotaryConfig
from torchgguf.models.stack import LayerStack
from torchgguf.nn import (
    AttentionFunction,
    AttentionMask,
    Cache,
    Embedding,
    Linear,
    RMSNorm,
    RotaryEmbedding,
    Rotation,
    attention_masks,
    find_activation,
    next_positions,
    rotate,
)


@config_dataclass
class DecoderConfig(RotaryConfig):
    """Fields that all these models have; defaults differ."""

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
        """Fill in the sizes left open."""
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
            raise ValueError(f"{heads[0]} cannot share {heads[1]} evenly")
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embedding, but it is {self.head_dim}")


class Attention(nn.Module):
    """Self-attention; `window` is how far back a position looks (None: to the start)."""

    def __init__(
        self, config: Any, layer_idx: int, window: int | None, qkv_bias: bool, output_bias: bool
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.window = window
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.dropout = config.attention_dropout
        # Of all heads together.
        self.query_size = config.num_attention_heads * self.head_dim
        self.key_size = config.num_key_value_heads * self.head_dim
        self.add_projections(config.hidden_size, qkv_bias)
        self.o_proj = Linear(self.query_size, config.hidden_size, bias=output_bias)

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Make what `project` needs."""
        self.q_proj = Linear(hidden_size, self.query_size, bias=bias)
        self.k_proj = Linear(hidden_size, self.key_size, bias=bias)
        self.v_proj = Linear(hidden_size, self.key_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries `(B, T, H * D)`, keys and values `(B, T, K * D)`."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        cache: Cache | None,
        attend: AttentionFunction,
    ) -> tuple[Tensor, Tensor | None]:
        """Map `(B, T, hidden_size)` to itself; also the probabilities, if `attend` makes them."""
        batch, new, _ = x.shape
        heads = (batch, new, -1, self.head_dim)
        query, key, value = self.project(x)
        cos, sin, lengths = rotation
        query = rotate(query.view(heads), cos, sin).transpose(1, 2)
        key = rotate(key.view(heads), cos, sin).transpose(1, 2)
        value = value.view(heads).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx, lengths)
        dropout = self.dropout if self.training else 0.0
        output, probabilities = attend(query, key, value, mask, self.scaling, dropout)
        return self.o_proj(output.transpose(1, 2).reshape(batch, new, -1)), probabilities


class MLP(nn.Module):
    """`down(act(gate(x)) * up(x))`."""

    def __init__(self, config: Any, bias: bool, intermediate_size: int | None = None) -> None:
        super().__init__()
        size = config.intermediate_size if intermediate_size is None else intermediate_size
        self.add_projections(config.hidden_size, size, bias)
        self.down_proj = Linear(size, config.hidden_size, bias=bias)
        self.act_fn = find_activation("hidden_act", config.hidden_act)

    def add_projections(self, hidden_size: int, intermediate_size: int, bias: bool) -> None:
        """Make what `project` needs."""
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=bias)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return gate and up, each `(..., intermediate_size)`."""
        return self.gate_proj(x), self.up_proj(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., hidden_size)` to itself."""
        gate, up = self.project(x)
        down: Tensor = self.down_proj(self.act_fn(gate) * up)
        return down


class DecoderLayer(nn.Module):
    """Attention and MLP, or what is in their place, each on the normalised stream and added back to it."""

    def __init__(
        self,
        config: Any,
        layer_idx: int,
        *,
        window: int | None = None,
        qkv_bias: bool = False,
        output_bias: bool = False,
        mlp_bias: bool = False,
        attention: Attention | None = None,
        mlp: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.self_attn = attention or Attention(config, layer_idx, window, qkv_bias, output_bias)
        self.mlp = MLP(config, mlp_bias) if mlp is None else mlp
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        cache: Cache | None,
        attend: AttentionFunction,
    ) -> tuple[Tensor, Tensor | None]:
        """Map the stream `(B, T, hidden_size)` to the next layer's; also the attention probabilities."""
        attended, probabilities = self.self_attn(self.input_layernorm(x), rotation, mask, cache, attend)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), probabilities


class DecoderModel(LayerStack):
    """Embedding, layers and the last norm. Subclasses say how a layer is made."""

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        # The row of padding learns nothing, as in transformers; files may name a token that there is not.
        padding = config.pad_token_id
        if padding is not None and padding not in range(config.vocab_size):
            padding = None
        self.embed_tokens: nn.Module = Embedding(config.vocab_size, config.hidden_size, padding)
        layers = list(self.make_layers(config))
        self.layers = nn.ModuleList(layers)
        self.windows = [layer.self_attn.window for layer in layers]
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = RotaryEmbedding(config.rope_parameters, config.head_dim)
        self.post_init()

    def make_layers(self, config: Any) -> Iterable[DecoderLayer]:
        """Make the layers, first to last."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        return self.embed_tokens

    def prepare(
        self,
        x: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Cache | None,
    ) -> tuple[Tensor, Iterable[tuple[Any, ...]]]:
        """Give every layer the angles of the positions and the mask for its window."""
        if position_ids is None:
            position_ids = next_positions(cache, x.shape[1], x.device)
        rotation = self.rotary_emb(position_ids, x.dtype)
        masks = attention_masks(self.windows, attention_mask, x, cache)
        return x, [(rotation, masks[window]) for window in self.windows]


class DecoderForCausalLM(ModelWithHead, GenerationMixin):
    """A decoder with a head that scores the next token; `output_class` is what `forward` returns."""

    output_class: ClassVar[type[CausalLMOutputWithPast]] = CausalLMOutputWithPast
    head_name = "lm_head"
    head_bias = False
    accepts_loss_kwargs = True
    loss_type = "ForCausalLM"  # by which that Trainer knows that the first label of a text is not predicted
    lm_head: nn.Module

    def head_size(self, config: Any) -> int:
        """Return the size of the vocabulary."""
        size: int = config.vocab_size
        return size

    def get_output_embeddings(self) -> nn.Module:
        """Return the module that scores tokens."""
        return self.lm_head

    def set_output_embeddings(self, module: nn.Module) -> None:
        """Replace the module that scores tokens."""
        self.lm_head = module

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Score the next token at every position: an `output_class`.

        Arguments and errors are those of `LayerStack.forward`, and three more. `labels`, tokens `(B, T)`
        with -100 where none is to be predicted, ask for the loss, and `num_items_in_batch` is what it divides
        by (see `next_token_loss`). `logits_to_keep` scores only so many last positions (0: all), or those of
        an index. `inputs` are what else the model below takes.
        """
        decoded = self.base_model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            **inputs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(decoded.last_hidden_state[:, kept])
        output = self.output_class(
            loss=None if labels is None else next_token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output if return_dict else output.to_tuple()
