"""Rules of config maps for encoders: windows on both sides of a position, and what classifies texts."""

from typing import Any

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.blocks.gemma.two_rotations import TwoBasesRope
from torchgguf.models.blocks.layer_kinds import FULL
from torchgguf.models.blocks.windows import SLIDING
from torchgguf.models.core.config_map import Header, Rule
from torchgguf.models.core.pooling import POOLING_NAMES

_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_ACTIVATION, _POOLING = "hidden_activation", "classifier.pooling_type"
_LABELS = "classifier.output_labels"
_WRITABLE = ("gelu", "silu")


def layers_by_period(layers: int, period: int) -> list[str]:
    """Return the kinds of layers if every `period`-th, beginning with the first, sees all positions."""
    if period < 1:
        raise ValueError(f"global_attn_every_n_layers must be 1 or above, got {period}")
    return [SLIDING if i % period else FULL for i in range(layers)]


class SymmetricWindows(Rule):
    """The window, half of it on either side, and the layers that use it: two of three, unless stated."""

    keys = (_WINDOW, _PATTERN)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the window (0: none) and the period, or the kind of each layer."""
        layers, pattern = header.get("block_count", 0), header.values.get(_PATTERN, 3)
        if not header.get(_WINDOW, 0):
            return {"layer_types": [FULL] * layers}
        if isinstance(pattern, list) and all(type(each) in (bool, int) for each in pattern):
            types = [SLIDING if each else FULL for each in pattern]
        elif type(pattern) is int and pattern > 0:
            types = layers_by_period(layers, pattern)
        else:
            raise GGUFError(f"{_PATTERN} must be a positive integer, or {layers} booleans")
        return {"local_attention": header.positive(_WINDOW, int), "layer_types": types}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the window, and the period or the kind of each layer."""
        types = config.layer_types
        if SLIDING not in types:
            return {}
        periods = (n for n in range(1, len(types) + 1) if types == layers_by_period(len(types), n))
        pattern = next(periods, [kind == SLIDING for kind in types])
        return {_WINDOW: config.local_attention, _PATTERN: pattern}


class UnscaledBasesRope(TwoBasesRope):
    """Rotary embedding of both kinds of layers; files state that it is not scaled."""

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of both, and the kind of scaling."""
        return {"rope.scaling.type": "none", **super().write(config)}


class GateActivation(Rule):
    """The activation of the gates; files without it mean `gelu`."""

    keys = (_ACTIVATION,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read its name."""
        if (name := header.get(_ACTIVATION, "gelu")) not in _WRITABLE:
            raise GGUFError(f"{_ACTIVATION} must be {' or '.join(_WRITABLE)}, got {name!r}")
        return {"hidden_activation": name}

    def write(self, config: Any) -> dict[str, Any]:
        """Write its name."""
        if config.hidden_activation not in _WRITABLE:
            raise ValueError(f"GGUF does not support hidden_activation={config.hidden_activation!r}")
        return {_ACTIVATION: config.hidden_activation}


class ClassifierPooling(Rule):
    """How a head that classifies texts pools the states; files state it by the numbers of `POOLING_NAMES`."""

    keys = (_POOLING,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the number: of the mean unless stated, as llama.cpp assumes."""
        if (number := header.get(_POOLING, 1)) not in (1, 2):
            raise GGUFError(f"{_POOLING} must be 1 or 2, got {number}")
        return {"classifier_pooling": POOLING_NAMES[number]}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the number."""
        return {_POOLING: POOLING_NAMES.index(config.classifier_pooling)}


class Labels(Rule):
    """The names of the labels, or their number alone, of files whose model classifies texts."""

    keys = (_LABELS,)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the names; without them, the number of rows that score."""
        scores = header.tensors.get("cls.output.weight")
        if (names := header.values.get(_LABELS)) is None:
            return {} if scores is None else {"num_labels": scores.shape[0]}
        if not isinstance(names, list) or not names or any(type(name) is not str for name in names):
            raise GGUFError(f"{_LABELS} must be strings, got {brief(names)}")
        if scores is not None and scores.shape[0] != len(names):
            raise GGUFError(f"{_LABELS} are {len(names)}, but cls.output.weight has {scores.shape[0]} rows")
        return {"id2label": dict(enumerate(names))}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the names, unless they are the two that a config has by default."""
        names = [config.id2label[id] for id in sorted(config.id2label)]
        return {} if names == ["LABEL_0", "LABEL_1"] else {_LABELS: names}
