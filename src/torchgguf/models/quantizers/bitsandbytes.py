"""`BitsAndBytesConfig`: pack weights to 4 or 8 bits with bitsandbytes while a checkpoint loads."""

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

_logger = logging.getLogger(__name__)

# Weights that share a scale. In the library's CPU kernels no block may continue in the next row.
_CPU_BLOCK = 64
_STORAGES = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(kw_only=True)
class BitsAndBytesConfig:
    """Pack linear layers with bitsandbytes, and GPT-2's Conv1D. The fields are those of transformers.

    Embeddings, norms and heads stay plain.

    Attributes:
        load_in_8bit: int8 (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339).
        load_in_4bit: 4-bit floats (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
        llm_int8_threshold: larger activations are multiplied in 16 bits.
        llm_int8_skip_modules: names of modules that stay plain, or the last parts of their names.
        bnb_4bit_compute_dtype: the dtype of products.
        bnb_4bit_quant_type: "nf4" or "fp4".
        bnb_4bit_use_double_quant: whether the scales are packed, too.
        bnb_4bit_quant_storage: the dtype that the packed bytes are viewed as.

    Raises:
        ValueError: fields contradict each other, or a value is invalid.
        ImportError: bitsandbytes is not installed.
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
        """Check the fields, and import the library."""
        if self.load_in_8bit == self.load_in_4bit:
            raise ValueError("set one of load_in_4bit=True and load_in_8bit=True")
        if self.bnb_4bit_quant_type not in ("nf4", "fp4"):
            raise ValueError(f"bnb_4bit_quant_type must be 'nf4' or 'fp4', got {self.bnb_4bit_quant_type!r}")
        self.bnb_4bit_compute_dtype = floating_dtype(self.bnb_4bit_compute_dtype)
        storage = str(self.bnb_4bit_quant_storage).removeprefix("torch.")
        if storage not in _STORAGES:
            raise ValueError(f"bnb_4bit_quant_storage must be one of {', '.join(_STORAGES)}, got {storage!r}")
        self.bnb_4bit_quant_storage = _STORAGES[storage]
        _layers()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in config.json."""
        values = asdict(self)
        for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
            values[name] = str(values[name]).removeprefix("torch.")
        return {**values, "quant_method": self.quant_method}

    def pack(self, model: Model, path: str, layer: nn.Module) -> nn.Module:
        """Return the packed layer, or the layer itself if it stays plain, as in `QuantizationConfig.pack`."""
        base_path = f"{model.base_model_prefix}."
        is_head = model.base_model is not model and not path.startswith(base_path)
        skipped = any(path == name or path.endswith(f".{name}") for name in self.llm_int8_skip_modules or ())
        if not isinstance(layer, nn.Linear | Conv1D) or is_head or skipped:
            return layer
        weight = layer.weight.detach()
        weight = weight.t().contiguous() if isinstance(layer, Conv1D) else weight
        if self.load_in_4bit and weight.device.type == "cpu" and weight.shape[1] % _CPU_BLOCK:
            _logger.warning(
                "%s stays unpacked: on a CPU bitsandbytes needs rows of whole blocks of %d weights, got %d",
                *(path, _CPU_BLOCK, weight.shape[1]),
            )
            return layer
        packed = (self._four_bit if self.load_in_4bit else self._eight_bit)(weight, layer.bias is not None)
        if layer.bias is not None:
            packed.bias = layer.bias
        module: nn.Module = packed.to(weight.device)  # the library packs when the layer moves
        return module

    def _four_bit(self, weight: torch.Tensor, bias: bool) -> Any:
        layers = _layers()
        kept = import_module("torchgguf.models.quantizers.bitsandbytes_layers")
        options = {
            "compress_statistics": self.bnb_4bit_use_double_quant,
            "quant_type": self.bnb_4bit_quant_type,
            "quant_storage": self.bnb_4bit_quant_storage,
        }
        with torch.device("meta"):
            layer = kept.KeptLinear4bit(
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
