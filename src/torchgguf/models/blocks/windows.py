"""Sliding windows: config fields, and the rule for `attention.sliding_window` in GGUF files."""

from typing import Any, ClassVar

from torchgguf.container import GGUFError
from torchgguf.models.blocks.decoder import DecoderConfig
from torchgguf.models.blocks.layer_kinds import FULL, check_layer_types
from torchgguf.models.core.config import config_dataclass
from torchgguf.models.core.config_map import Header, Only, Rule

SLIDING = "sliding_attention"
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


@config_dataclass
class UniformlyWindowedConfig(DecoderConfig):
    """Config of a model whose queries all see `sliding_window` positions; None: all."""

    layers_differ: ClassVar[bool] = False

    sliding_window: int | None = None

    @property
    def stated_window(self) -> int | None:
        """The window as files state it."""
        return self.sliding_window

    def window_of(self, layer_idx: int) -> int | None:
        """Return the window of a layer: the number of positions that a query sees; None: all."""
        return self.sliding_window

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None, layers: int) -> dict[str, Any]:
        """Return the fields for a window and a pattern of the layers with it; None: all layers."""
        return {"sliding_window": window}


@config_dataclass
class LayerTypesConfig(DecoderConfig):
    """Config of a model with a window in some layers, which `layer_types` names.

    Attributes:
        period: without `layer_types`, every `period`-th layer sees all positions; 0: all have a window.
    """

    layers_differ: ClassVar[bool] = True
    period: ClassVar[int] = 0

    sliding_window: int | None = 4096
    layer_types: list[str] | None = None

    def __post_init__(self, *legacy: Any) -> None:
        """Fill in `layer_types`, and check it."""
        super().__post_init__(*legacy)
        if self.layer_types is None:
            self.layer_types = self.default_layer_types()
        check_layer_types(self.layer_types, (FULL, SLIDING), self.num_hidden_layers)

    @property
    def stated_window(self) -> int | None:
        """The window as files state it."""
        return self.sliding_window

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        return self.types_by_period(self.period)

    def types_by_period(self, period: int) -> list[str]:
        """Return the kinds of layers if every `period`-th sees all positions; 0: all have a window."""
        return [SLIDING if windowed else FULL for windowed in periodic(period, self.num_hidden_layers)]

    def window_of(self, layer_idx: int) -> int | None:
        """Return the window of a layer: the number of positions that a query sees; None: all."""
        assert self.layer_types is not None
        return self.sliding_window if self.layer_types[layer_idx] == SLIDING else None

    @classmethod
    def pattern_is_known(cls, config: Any) -> bool:
        """Return whether files need not state the layers with a window: readers know the pattern."""
        same: bool = config.layer_types == config.default_layer_types()
        return same

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None, layers: int) -> dict[str, Any]:
        """Return the fields for a window and a pattern of the layers with it; None: the default pattern."""
        if window is None:
            pattern = [False] * layers
        types = {} if pattern is None else {"layer_types": [SLIDING if s else FULL for s in pattern]}
        return {"sliding_window": window, **types}


def periodic(period: int, layers: int) -> list[bool]:
    """Return which layers have a window if every `period`-th has none; 0: all have one."""
    return [period == 0 or i % period < period - 1 for i in range(layers)]


@config_dataclass
class WindowedConfig(LayerTypesConfig):
    """Config of a model with a window in some layers.

    With `use_sliding_window`, layers from `max_window_layers` on see `sliding_window` positions;
    `layer_types` states the kind of each layer, and overrides this.
    """

    use_sliding_window: bool = False
    max_window_layers: int = 28

    def __post_init__(self, *legacy: Any) -> None:
        """Leave the window out unless it is in use."""
        if not self.use_sliding_window:
            self.sliding_window = None
        super().__post_init__(*legacy)

    def default_layer_types(self) -> list[str]:
        """Return the kinds of layers if the config does not state them."""
        full = self.num_hidden_layers if self.sliding_window is None else self.max_window_layers
        return [FULL if i < full else SLIDING for i in range(self.num_hidden_layers)]

    @classmethod
    def pattern_is_known(cls, config: Any) -> bool:
        """Return False: readers know no pattern."""
        return False

    @classmethod
    def window_fields(cls, window: int | None, pattern: list[bool] | None, layers: int) -> dict[str, Any]:
        """Return the fields for a window and a pattern of the layers with it; None: all layers."""
        stated = {"use_sliding_window": window is not None, "sliding_window": window}
        if pattern is None:
            return {} if window is None else {**stated, "max_window_layers": 0}
        return {**stated, "layer_types": [SLIDING if sliding else FULL for sliding in pattern]}


class LayerWindows(Rule):
    """The window, and the layers that use it: all layers, unless a pattern selects some.

    Args:
        config_class: its `window_fields` converts both to fields.
        always_stated: whether to write 0 if no layer has a window, instead of no key.
        default: window of files that do not state it; None: no window.
    """

    def __init__(
        self,
        config_class: type[UniformlyWindowedConfig | LayerTypesConfig] = WindowedConfig,
        *,
        always_stated: bool = False,
        default: int | None = None,
    ) -> None:
        self.keys = (_WINDOW, _PATTERN) if config_class.layers_differ else (_WINDOW,)
        self._config_class = config_class
        self._always_stated = always_stated
        self._default = default

    def read(self, header: Header) -> dict[str, Any]:
        """Read the window (0: no window) and the pattern."""
        window = header.positive(_WINDOW, int) if header.get(_WINDOW, self._default or 0) else None
        pattern = header.values.get(_PATTERN) if _PATTERN in self.keys else None
        layers = header.get("block_count", 0)
        if type(pattern) is int:
            pattern = periodic(pattern, layers)
        if pattern is not None:
            # llama.cpp's own writer states them as numbers.
            booleans = isinstance(pattern, list) and all(type(each) in (bool, int) for each in pattern)
            if not booleans or len(pattern) != layers:
                raise GGUFError(f"{_PATTERN} must be {layers} booleans, one a layer")
            if window is None and any(pattern):
                raise GGUFError(f"{_PATTERN} selects layers with a window, but {_WINDOW} is missing or 0")
        return self._config_class.window_fields(window, pattern, layers)

    def write(self, config: Any) -> dict[str, Any]:
        """Write the window and, if files of this architecture store it, the pattern."""
        windows = config.windows
        if not any(windows):
            return {_WINDOW: 0} if self._always_stated else {}
        stated = {_WINDOW: config.stated_window, _PATTERN: [bool(window) for window in windows]}
        known = issubclass(self._config_class, LayerTypesConfig) and self._config_class.pattern_is_known(
            config
        )
        return {key: stated[key] for key in self.keys if key != _PATTERN or not known}


NO_WINDOW = Only(_WINDOW, 0, "sliding windows are unsupported for this architecture")
