"""`BitsAndBytesConfig`: 4-bit and 8-bit weights by the bitsandbytes library, packed during loading."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import nn

from torchgguf.models.core.config import floating_dtype
from torchgguf.models.core.model import Model
from torchgguf.nn import Conv1D

logger = logging.getLogger(__name__)

_CPU_BLOCK = (
    64  # weights that share a scale; the library's CPU kernels cannot have one reach into the next row
)
_STORAGES = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(kw_only=True)
class BitsAndBytesConfig:
    """How bitsandbytes packs linear layers; GPT-2's Conv1D are linear layers too. Fields as in transformers.

    Embeddings, norms and the head that scores tokens or texts stay as they are.

    Attributes:
        load_in_8bit: int8 (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339).
        load_in_4bit: 4-bit floats (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
        llm_int8_threshold: activations beyond it are multiplied in 16 bits.
        llm_int8_skip_modules: names of modules to leave as they are besides the head, whole or the end.
        bnb_4bit_compute_dtype: what products are computed in.
        bnb_4bit_quant_type: "nf4" or "fp4".
        bnb_4bit_use_double_quant: pack the scales as well.
        bnb_4bit_quant_storage: the dtype that the packed bytes pretend to have.

    Raises:
        ValueError: fields contradict each other or have values that do not exist.
    """

    quant_method: ClassVar[str] = "bitsandbytes"

    load_in_8bit: bool = False
    load_in_4bit: bool = False
    llm_int8_threshold: float = 6.0
    llm_int8_skip_modules: list[str] | None = None
    bnb_4bit_compute_dtype: torch.dtype | str | None = None
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_quant_storage: torch.dtype | str = "uint8"

    def __post_init__(self) -> None:
        """Check the fields, and that the library is there."""
        if self.load_in_8bit == self.load_in_4bit:
            raise ValueError("say one of load_in_4bit=True and load_in_8bit=True")
        if self.bnb_4bit_quant_type not in ("nf4", "fp4"):
            raise ValueError(f"bnb_4bit_quant_type is 'nf4' or 'fp4', not {self.bnb_4bit_quant_type!r}")
        self.bnb_4bit_compute_dtype = floating_dtype(self.bnb_4bit_compute_dtype)
        storage = str(self.bnb_4bit_quant_storage).removeprefix("torch.")
        if storage not in _STORAGES:
            raise ValueError(f"bnb_4bit_quant_storage is one of {', '.join(_STORAGES)}, not {storage!r}")
        self.bnb_4bit_quant_storage = _STORAGES[storage]
        _layers()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as config.json would hold them."""
        values = asdict(self)
        for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
            values[name] = str(values[name]).removeprefix("torch.")
        return {**values, "quant_method": self.quant_method}

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return the layer with its weights packed, or itself if it is none that is to be packed."""
        base_path = f"{model.base_model_prefix}."
        is_head = model.base_model is not model and not path.startswith(base_path)
        skipped = any(path == name or path.endswith(f".{name}") for name in self.llm_int8_skip_modules or ())
        if not isinstance(layer, nn.Linear | Conv1D) or is_head or skipped:
            return layer
        weight = layer.weight.detach()
        weight = weight.t().contiguous() if isinstance(layer, Conv1D) else weight
        if self.load_in_4bit and weight.device.type == "cpu" and weight.shape[1] % _CPU_BLOCK:
            logger.warning(
                "%s stays unpacked: on a CPU bitsandbytes takes rows of whole blocks of %d, not of %d",
                *(path, _CPU_BLOCK, weight.shape[1]),
            )
            return layer
        packed = (self._four_bit if self.load_in_4bit else self._eight_bit)(weight, layer.bias is not None)
        if layer.bias is not None:
            packed.bias = layer.bias
        module: nn.Module = packed.to(weight.device)  # which is when the library packs
        return module

    def _four_bit(self, weight: torch.Tensor, bias: bool) -> Any:
        layers = _layers()
        options = {
            "compress_statistics": self.bnb_4bit_use_double_quant,
            "quant_type": self.bnb_4bit_quant_type,
            "quant_storage": self.bnb_4bit_quant_storage,
        }
        with torch.device("meta"):
            layer = layers.Linear4bit(
                weight.shape[1], weight.shape[0], bias, self.bnb_4bit_compute_dtype, **options
            )
        layer.weight = layers.Params4bit(weight, requires_grad=False, module=layer, **options)
        return layer

    def _eight_bit(self, weight: torch.Tensor, bias: bool) -> Any:
        layers = _layers()
        with torch.device("meta"):
            layer = layers.Linear8bitLt(
                weight.shape[1],
                weight.shape[0],
                bias,
                has_fp16_weights=False,
                threshold=self.llm_int8_threshold,
            )
        layer.weight = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return layer


def _layers() -> ModuleType:
    """Return the library's layers."""
    try:
        return import_module("bitsandbytes.nn")
    except ImportError:
        raise ImportError("4-bit and 8-bit weights need bitsandbytes: pip install 'torchgguf[bnb]'") from None
