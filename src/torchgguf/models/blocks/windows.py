"""Sliding windows: which layers have one, and the rule for `attention.sliding_window` in GGUF files."""

from typing import Any, ClassVar

from torchgguf.container import GGUFError
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Only, Rule

SLIDING, FULL = "sliding_attention", "full_attention"
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


@config_dataclass
class UniformlyWindowedConfig(DecoderConfig):
    """Config of a model whose layers all look back over `sliding_window` positions; None: to the start."""

    layers_differ: ClassVar[bool] = False

    sliding_window: int | None = None

    @property
    def windows(self) -> list[int | None]:
        """How many positions back each layer sees; None: all."""
        return [self.sliding_window] * self.num_hidden_layers

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None) -> dict[str, Any]:
        """Return the fields for a window, and for which layers have it; None: all of them."""
        return {"sliding_window": window}


@config_dataclass
class WindowedConfig(DecoderConfig):
    """Config of a model some of whose layers have a window.

    With `use_sliding_window`, layers from `max_window_layers` on look back over `sliding_window` positions;
    `layer_types` states it for each layer, and goes first.
    """

    layers_differ: ClassVar[bool] = True

    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """State of each layer whether it has a window."""
        super().__post_init__(*legacy)
        if not self.use_sliding_window:
            self.sliding_window = None
        if self.layer_types is None:
            windowed = self.num_hidden_layers if self.sliding_window is None else self.max_window_layers
            self.layer_types = [FULL if i < windowed else SLIDING for i in range(self.num_hidden_layers)]
        if len(self.layer_types) != self.num_hidden_layers or not {*self.layer_types} <= {FULL, SLIDING}:
            raise ValueError(
                f"layer_types must name {FULL!r} or {SLIDING!r} once for each of "
                f"{self.num_hidden_layers} layers, but it is {self.layer_types}"
            )

    @property
    def windows(self) -> list[int | None]:
        """How many positions back each layer sees; None: all."""
        assert self.layer_types is not None
        return [self.sliding_window if kind == SLIDING else None for kind in self.layer_types]

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None) -> dict[str, Any]:
        """Return the fields for a window, and for which layers have it; None: all of them."""
        stated = {"use_sliding_window": window is not None, "sliding_window": window}
        if pattern is None:
            return {} if window is None else {**stated, "max_window_layers": 0}
        return {**stated, "layer_types": [SLIDING if sliding else FULL for sliding in pattern]}


class LayerWindows(Rule):
    """The window, and which layers have it: all of them unless a pattern states otherwise.

    Args:
        config_class: makes its fields of them.
        always_stated: write 0 where no layer has a window; otherwise nothing is written.
    """

    def __init__(
        self,
        config_class: type[UniformlyWindowedConfig | WindowedConfig] = WindowedConfig,
        *,
        always_stated: bool = False,
    ) -> None:
        self.keys = (_WINDOW, _PATTERN) if config_class.layers_differ else (_WINDOW,)
        self._config_class = config_class
        self._always_stated = always_stated

    def read(self, header: Header) -> dict[str, Any]:
        """Read the window (0: there is none) and the pattern."""
        window = header.positive(_WINDOW, int) if header.get(_WINDOW, 0) else None
        pattern = header.values.get(_PATTERN) if _PATTERN in self.keys else None
        if pattern is not None:
            layers = header.get("block_count", 0)
            booleans = isinstance(pattern, list) and all(type(each) is bool for each in pattern)
            if not booleans or len(pattern) != layers:
                raise GGUFError(f"{_PATTERN} must be {layers} booleans, one a layer")
            if window is None and any(pattern):
                raise GGUFError(f"{_PATTERN} says which layers have a window, but {_WINDOW} states none")
        return self._config_class.window_fields(window, pattern)

    def write(self, config: Any) -> dict[str, Any]:
        """Write the window and, where files may state it, the pattern."""
        windows = config.windows
        if not any(windows):
            return {_WINDOW: 0} if self._always_stated else {}
        stated = {_WINDOW: config.sliding_window, _PATTERN: [bool(window) for window in windows]}
        return {key: stated[key] for key in self.keys}


NO_WINDOW = Only(_WINDOW, 0, "all layers of this architecture look back without limit")
