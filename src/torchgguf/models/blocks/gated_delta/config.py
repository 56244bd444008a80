"""`GatedDeltaConfig`, and the rules of its fields in GGUF files."""

from typing import Any

from torchgguf.container import GGUFError
from torchgguf.models.blocks import nextn, tables
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.layer_kinds import FULL, LINEAR, check_layer_types
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Field, Header, Rule, Unwritable, largest_dimension

_INTERVAL, _RECURRENT, _INNER = "full_attention_interval", "attention.recurrent_layers", "ssm.inner_size"


@config_dataclass
class GatedDeltaConfig(DecoderConfig):
    """Fields of models with these layers, and attention in the others; defaults differ.

    `layer_types` names the kind of each layer. Without it, every `full_attention_interval`-th has attention.
    `mtp_num_hidden_layers` counts the blocks that predict further tokens, which are kept, not run.
    """

    rotates_parts = True
    default_part = 0.25

    num_attention_heads: int = 16
    max_position_embeddings: int = 32768
    head_dim: int | None = 256
    attention_bias: bool = False
    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32
    layer_types: list[str] | None = None
    full_attention_interval: int = 4
    mtp_num_hidden_layers: int = 0

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in `layer_types`, and check it and the heads."""
        super().__post_init__(*legacy)
        if self.full_attention_interval < 1:
            raise ValueError(f"{_INTERVAL} must be at least 1, got {self.full_attention_interval}")
        if self.layer_types is None:
            places = range(1, self.num_hidden_layers + 1)
            self.layer_types = [LINEAR if i % self.full_attention_interval else FULL for i in places]
        check_layer_types(self.layer_types, (FULL, LINEAR), self.num_hidden_layers)
        keys, values = self.linear_num_key_heads, self.linear_num_value_heads
        if min(keys, values) < 1 or values % keys:
            raise ValueError(
                "linear_num_value_heads must be a positive multiple of linear_num_key_heads, "
                f"got {values} and {keys}"
            )

    @property
    def linear_sizes(self) -> tuple[int, int, int]:
        """Numbers of all queries, of all keys and of all values."""
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        return keys, keys, self.linear_num_value_heads * self.linear_value_head_dim


class SizeOfValues(Rule):
    """The size of value heads, which files state as that of all together."""

    keys = (_INNER,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the size."""
        inner, heads = (header.positive(key, int) for key in (_INNER, "ssm.time_step_rank"))
        if inner % heads or inner > largest_dimension(header):
            raise GGUFError(f"{_INNER} = {inner} is invalid: there are {heads} heads of values")
        return {"linear_value_head_dim": inner // heads}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the size of all heads together."""
        return {_INNER: config.linear_sizes[2]}


class RecurrentLayers(Rule):
    """The kinds of layers, one by one, or by the interval of those with attention."""

    keys = (_INTERVAL, _RECURRENT)

    def read(self, header: Header) -> dict[str, Any]:
        """Read both."""
        stated: dict[str, Any] = {}
        if _INTERVAL in header.values:
            stated[_INTERVAL] = header.positive(_INTERVAL, int)
        if (kinds := header.values.get(_RECURRENT)) is None:
            return stated
        layers = header.get("block_count", 0)
        is_list = isinstance(kinds, list) and all(type(kind) in (bool, int) for kind in kinds)
        if not is_list or len(kinds) != layers:
            raise GGUFError(f"{_RECURRENT} must be {layers} booleans, one a layer")
        running = layers - header.get("nextn_predict_layers", 0)
        return {**stated, "layer_types": [LINEAR if kind else FULL for kind in kinds[: max(running, 0)]]}

    def write(self, config: Any) -> dict[str, Any]:
        """Write both. Blocks that predict further tokens have attention."""
        kinds = [kind == LINEAR for kind in config.layer_types] + [False] * config.mtp_num_hidden_layers
        return {_RECURRENT: kinds, _INTERVAL: config.full_attention_interval}


_COUNTED = nextn.counting_others(tables.COMMON_RULES, nextn.SeparateLayers, others="mtp_num_hidden_layers")
RULES = (
    *_COUNTED,
    Unwritable("hidden_act", "silu"),
    Unwritable("attention_bias", False),
    Field("ssm.conv_kernel", "linear_conv_kernel_dim", limit=largest_dimension),
    Field("ssm.state_size", "linear_key_head_dim", limit=largest_dimension),
    Field("ssm.group_count", "linear_num_key_heads", limit=largest_dimension),
    Field("ssm.time_step_rank", "linear_num_value_heads", limit=largest_dimension),
    SizeOfValues(),
    RecurrentLayers(),
)
