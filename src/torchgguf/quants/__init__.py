"""Quantization types: how GGUF stores weights in blocks, and how to unpack them. One class a type."""

from torchgguf.quants import fp4, i_quants, k_quants, legacy, plain, ternary  # noqa: F401 (registers the types)
from torchgguf.quants.base import QuantType, QuantTypeLike, dequantize, quant_type, quant_types, quantize

__all__ = ["QuantType", "QuantTypeLike", "dequantize", "quant_type", "quant_types", "quantize"]
