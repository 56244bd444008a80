"""`GGUFQuantizationConfig`: pack any Hugging Face checkpoint into GGUF blocks while it loads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from torchgguf.models.core.config_map import Field
from torchgguf.models.core.model import Model
from torchgguf.models.core.narrowing import became_infinite, refuse_too_large
from torchgguf.nn import SlottedLayer
from torchgguf.nn.slots import Slot, slots
from torchgguf.packing import Choice, Quantization, pack_tensor, stays_wide
from torchgguf.packing.planning import log_fallbacks
from torchgguf.packing.recipes import recipe
from torchgguf.quants import QuantType, quant_type, quantize
from torchgguf.quants.capacity import exceeds

_logger = logging.getLogger(__name__)

# The types of each tensor, by GGUF name, of models that are being loaded.
_PLANS: WeakKeyDictionary[Model, dict[str, Choice]] = WeakKeyDictionary()


@dataclass
class GGUFQuantizationConfig:
    """Pack matrices, to one type or by a recipe, as `save_gguf(quantization=...)` does.

    Matrices whose rows do not divide into the blocks of the one type stay plain, and the log names them. A
    recipe replaces the type of such matrices. What GGUF files never pack, such as position embeddings, stays
    plain.

    Attributes:
        quantization: name of a type, such as `"Q8_0"`, for all matrices, as `Quantization(type, pure=True)`;
            or name of a recipe, such as `"Q4_K_M"`, that is not a type; or a `Quantization`, which may
            contain an importance matrix.
        modules_to_not_convert: names of modules that stay plain, or the last parts of their names.

    Raises:
        ValueError: the type or recipe is unknown.
    """

    quant_method: ClassVar[str] = "torchgguf"  # "gguf" is transformers' own, for files of that format

    quantization: str | Quantization = "Q8_0"
    modules_to_not_convert: list[str] | None = None
    _type: QuantType | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the type or the recipe."""
        self._type = None
        if not isinstance(self.quantization, Quantization):
            try:
                self._type = quant_type(self.quantization)
            except ValueError:
                recipe(self.quantization)

    @property
    def is_one_type(self) -> bool:
        """Whether all matrices get one type, not those of a recipe."""
        return self._type is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in config.json."""
        asked = self.quantization
        return {
            "quant_method": self.quant_method,
            "quantization": recipe(asked.recipe).name if isinstance(asked, Quantization) else asked,
            "modules_to_not_convert": self.modules_to_not_convert,
        }

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return the packed layer, or the layer itself if it stays plain, as in `QuantizationConfig.pack`."""
        plan = self._plan(model) if self._type is None else {}
        names = self.modules_to_not_convert or ()
        if not isinstance(layer, SlottedLayer) or any(path == n or path.endswith(f".{n}") for n in names):
            return layer
        found = {slot: _gguf_name(model, path, slot) for slot in layer.slots() if slot.packable}
        for slot, name in found.items():
            if name is None or stays_wide(name) or (self._type is None and name not in plan):
                return layer
            if self._type is not None and slot.shape[-1] % self._type.block_size:
                _logger.warning("%s.%s stays unpacked: %s", path, slot.name, _why_not(slot, self._type))
                return layer
        dtype = model.config.dtype
        for slot, name in found.items():
            assert name is not None
            if self._type is not None:
                kind, blocks = self._type, _blocks(slot.read(), self._type, f"{path}.{slot.name}")
            else:
                kind = plan[name].type
                blocks = pack_tensor(name, slot.read(), plan[name], Quantization.of(self.quantization))
            packed = layer.pack(slot.name, blocks, kind, dtype)
            assert isinstance(packed, SlottedLayer)
            layer = packed
        return layer

    def _plan(self, model: Model) -> dict[str, Choice]:
        """Choose the types of all tensors as they are in a file, because a recipe counts them."""
        if model not in _PLANS:
            architecture = model.architecture
            prefix = architecture.gguf_of(model.config)
            metadata: dict[str, Any] = {"general.architecture": prefix}
            for rule in architecture.rules:
                if isinstance(rule, Field):
                    stated = rule.write(model.config).items()
                    metadata |= {f"{prefix}.{key}": value for key, value in stated}
            is_shared = model.config.tie_word_embeddings and not architecture.states_head
            head = model.get_output_embeddings() if is_shared else None
            shapes = {
                name: slot.shape
                for path, layer in model.named_modules()
                if layer is not head
                for slot in slots(layer)
                if (name := _gguf_name(model, path, slot)) is not None
            }
            plan = Quantization.of(self.quantization).plan(metadata, shapes)
            log_fallbacks(plan.values())
            _PLANS[model] = plan
        return _PLANS[model]


def _gguf_name(model: Model, path: str, slot: Slot) -> str | None:
    """Return the name of a tensor in GGUF files, or None if they have no such tensor."""
    hf_name = model.base_name(f"{path}.{slot.name}".removeprefix("."))
    target = model.architecture.weights.to_gguf(hf_name, model.config)
    return None if target is None else target[0]


def _blocks(weights: Tensor, kind: QuantType, name: str) -> Tensor:
    """Pack weights; those that are too large for the type must not become others, or infinite."""
    if exceeds(weights, kind):
        raise ValueError(f"tensor {name!r} has weights that are too large for {kind.name}")
    blocks, half = quantize(weights, kind), kind.dtype
    if half is torch.float16 and became_infinite(blocks.view(half), lambda: weights):
        refuse_too_large(name, half)
    return blocks


def _why_not(slot: Slot, kind: QuantType) -> str:
    return f"rows of {slot.shape[-1]} do not divide into {kind.name} blocks of {kind.block_size}"
