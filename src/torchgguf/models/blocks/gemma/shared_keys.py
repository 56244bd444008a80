"""Attention of Gemma 3n and Gemma 4: normed values, and keys and values that later layers read, too.

Layers from a certain one on have no keys and values of their own. Each reads those of the last layer of its
kind before them (Brandon et al. 2024, arXiv 2405.12981).

Shape letters: B batch, T new positions, S positions seen including the new ones, H query heads, K key/value
heads, D head size.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from torchgguf.container import GGUFError
from torchgguf.models.blocks.attention import Attention
from torchgguf.models.blocks.step import Step
from torchgguf.models.blocks.windows import LayerTypesConfig
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Rule
from torchgguf.nn import Linear, WideRMSNorm, unweighted_rms_norm


@config_dataclass
class SharedKeysConfig(LayerTypesConfig):
    """Config of a model whose last `num_kv_shared_layers` layers have no keys and values of their own."""

    num_kv_shared_layers: int = 0

    def __post_init__(self, *legacy: Any) -> None:
        """Check that each layer has keys to read."""
        super().__post_init__(*legacy)
        if not 0 <= self.num_kv_shared_layers < self.num_hidden_layers:
            raise ValueError(
                f"num_kv_shared_layers must be from 0 to {self.num_hidden_layers - 1}, "
                f"got {self.num_kv_shared_layers}"
            )
        assert self.layer_types is not None
        first = self.first_shared
        if missing := {*self.layer_types[first:]} - {*self.layer_types[:first]}:
            raise ValueError(
                f"the last {self.num_kv_shared_layers} layers read the keys of others, "
                f"but none of these is of the kind {min(missing)!r}"
            )

    @property
    def first_shared(self) -> int:
        """The number of the first layer without keys of its own."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    def key_source(self, layer_idx: int) -> int:
        """Return the layer whose keys and values a layer reads: its own number, or an earlier one."""
        assert self.layer_types is not None
        if layer_idx < self.first_shared:
            return layer_idx
        before = self.layer_types[: self.first_shared]
        return len(before) - 1 - before[::-1].index(self.layer_types[layer_idx])

    def lends_keys(self, layer_idx: int) -> bool:
        """Return whether later layers read the keys and values of a layer."""
        return any(self.key_source(i) == layer_idx for i in range(self.first_shared, self.num_hidden_layers))

    @classmethod
    def pattern_is_known(cls, config: Any) -> bool:
        """Return False: files always state the layers with a window."""
        return False


class SharedKeys(Rule):
    """Rule of `num_kv_shared_layers`, and of the tensors that files may contain although no layer reads them.

    Released checkpoints and their files have keys and values in all layers.
    """

    keys = ("attention.shared_kv_layers",)
    _unread = (
        *("attn_k.", "attn_v.", "attn_k_norm."),
        *("self_attn.k_proj.", "self_attn.v_proj.", "self_attn.k_norm."),
    )

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number."""
        shared = header.get(self.keys[0], 0)
        if not 0 <= shared < header.get("block_count", 0):
            raise GGUFError(f"{self.keys[0]} must be from 0 to block_count - 1, got {shared}")
        return {"num_kv_shared_layers": shared}

    def write(self, config: SharedKeysConfig) -> dict[str, Any]:
        """Write the number, if readers find the same keys: those of the last two layers that have any."""
        first = config.first_shared
        for layer in range(first, config.num_hidden_layers):
            expected = first - (1 if config.window_of(layer) is None else 2)
            if config.key_source(layer) != expected:
                raise ValueError(
                    f"GGUF does not support num_kv_shared_layers={config.num_kv_shared_layers} with these "
                    f"layer_types: readers give layer {layer} the keys of layer {expected}"
                )
        return {self.keys[0]: config.num_kv_shared_layers}

    def is_kept(self, config: SharedKeysConfig, layer_idx: int, name: str, in_new: bool) -> bool:
        """Return whether a tensor is of keys and values that no layer reads."""
        return config.first_shared <= layer_idx < config.num_hidden_layers and name.startswith(self._unread)


class LendingAttention(Attention):
    """Attention with norms of queries, keys and values, whose scores are not scaled.

    Args:
        config: as for `Attention`.
        layer_idx: number of the layer.
        window: as for `Attention`.
        lends: whether later layers read the keys and values.
        options: as for `Attention`.
    """

    def __init__(
        self, config: Any, layer_idx: int, window: int | None, *, lends: bool, **options: Any
    ) -> None:
        super().__init__(config, layer_idx, window, qk_norm=WideRMSNorm, scaling=1.0, **options)
        self.eps = config.rms_norm_eps
        self.lends = lends

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        heads = (*x.shape[:2], -1, self.head_dim)
        query, key, value = (part.view(heads) for part in self.project(x))
        query, key = self.position(self.q_norm(query), self.k_norm(key), step)
        return self.project_output(self.attend(query, key, unweighted_rms_norm(value, self.eps), step))

    def mix(self, query: Tensor, key: Tensor, value: Tensor, step: Step) -> Tensor:
        """Compare queries with all keys, as in `SelfAttention.mix`, and lend these and the values."""
        if self.lends:
            step.shared[self.layer_idx] = key, value
        return super().mix(query, key, value, step)


class KeysAsValues(LendingAttention):
    """Attention whose values are its keys before norm and rotation."""

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the layers that `project` uses."""
        self.q_proj = Linear(hidden_size, self.query_size, bias=bias)
        self.k_proj = Linear(hidden_size, self.key_size, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries `(B, T, H * D)`, keys and values `(B, T, K * D)`."""
        key = self.k_proj(x)
        return self.q_proj(x), key, key


class BorrowingAttention(Attention):
    """Attention that reads the keys and values of an earlier layer.

    Args:
        config: as for `Attention`.
        layer_idx: number of the layer.
        window: as for `Attention`.
        source: number of the layer that has the keys and values.
        options: as for `Attention`.
    """

    def __init__(
        self, config: Any, layer_idx: int, window: int | None, *, source: int, **options: Any
    ) -> None:
        super().__init__(config, layer_idx, window, qk_norm=WideRMSNorm, scaling=1.0, **options)
        self.source = source

    def add_projections(self, hidden_size: int, bias: bool) -> None:
        """Create the projection of queries."""
        self.q_proj = Linear(hidden_size, self.query_size, bias=bias)

    def add_norms(self, norm: Callable[[int], nn.Module]) -> None:
        """Create the norm of queries."""
        self.q_norm = norm(self.head_dim)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map `(B, T, hidden_size)` to itself."""
        query = self.q_norm(self.q_proj(x).view(*x.shape[:2], -1, self.head_dim))
        assert self.rotation is not None
        cos, sin, _ = step.rotations[self.rotation]
        query = self.rotate(query, cos, sin).transpose(1, 2)
        key, value = (tensor.to(x.device) for tensor in step.shared[self.source])
        return self.project_output(self.mix(query, key, value, step))


def sharing_attention(
    config: Any, layer_idx: int, kind: type[LendingAttention] = LendingAttention
) -> Attention:
    """Create the attention of a layer.

    Args:
        config: a `SharedKeysConfig`, or a copy of one with the sizes of this layer.
        layer_idx: number of the layer.
        kind: class of attention that has keys and values of its own.
    """
    options = {"bias": config.attention_bias, "rotation": config.layer_types[layer_idx]}
    window, source = config.window_of(layer_idx), config.key_source(layer_idx)
    if source != layer_idx:
        return BorrowingAttention(config, layer_idx, window, source=source, **options)
    return kind(config, layer_idx, window, lends=config.lends_keys(layer_idx), **options)


def wide_norm(config: Any) -> nn.Module:
    """Create a norm of the stream: a `NormOfStream`."""
    return WideRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
