"""`GGUFQuantizationConfig`: pack any Hugging Face checkpoint into GGUF blocks while it loads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.core.model import Model
from torchgguf.models.core.narrowing import became_infinite, refuse_too_large
from torchgguf.nn import SlottedLayer
from torchgguf.packing import stays_wide
from torchgguf.quants import QuantType, quant_type, quantize
from torchgguf.quants.capacity import exceeds

_logger = logging.getLogger(__name__)


@dataclass
class GGUFQuantizationConfig:
    """Pack matrices to one type, as `save_gguf(quantization=Quantization(type, pure=True))` does.

    Matrices whose rows do not divide into the type's blocks stay plain, and the log names them. So do those
    that GGUF files never pack, such as position embeddings.

    Attributes:
        quantization: name of the type, such as `"Q8_0"`.
        modules_to_not_convert: names of modules that stay plain, or the last parts of their names.

    Raises:
        ValueError: the type is unknown.
    """

    quant_method: ClassVar[str] = "gguf"

    quantization: str = "Q8_0"
    modules_to_not_convert: list[str] | None = None
    _type: QuantType = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the type."""
        self._type = quant_type(self.quantization)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in config.json."""
        return {
            "quant_method": self.quant_method,
            "quantization": self.quantization,
            "modules_to_not_convert": self.modules_to_not_convert,
        }

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return the packed layer, or the layer itself if it stays plain, as in `QuantizationConfig.pack`."""
        names = self.modules_to_not_convert or ()
        if not isinstance(layer, SlottedLayer) or any(path == n or path.endswith(f".{n}") for n in names):
            return layer
        slots = [slot for slot in layer.slots() if slot.packable]
        for slot in slots:
            target = model.architecture.weights.to_gguf(model.base_name(f"{path}.{slot.name}"))
            if target is None or stays_wide(target[0]):
                return layer
            if slot.shape[-1] % self._type.block_size:
                _logger.warning("%s.%s stays unpacked: %s", path, slot.name, self._why_not(slot.shape[-1]))
                return layer
        dtype = model.config.dtype
        for slot in slots:
            blocks = self._blocks(slot.read(), f"{path}.{slot.name}")
            packed = layer.pack(slot.name, blocks, self._type, dtype)
            assert isinstance(packed, SlottedLayer)
            layer = packed
        return layer

    def _blocks(self, weights: Tensor, name: str) -> Tensor:
        """Pack weights; those that are too large for the type must not become others, or infinite."""
        blocks, half = quantize(weights, self._type), self._type.dtype
        if exceeds(weights, self._type):
            raise ValueError(f"tensor {name!r} has weights that are too large for {self._type.name}")
        if half is torch.float16 and became_infinite(blocks.view(half), lambda: weights):
            refuse_too_large(name, half)
        return blocks

    def _why_not(self, columns: int) -> str:
        return f"rows of {columns} do not divide into {self._type.name} blocks of {self._type.block_size}"
