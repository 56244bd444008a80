"""Gradients of packed models with adapters are those of the unpacked ones, in FP32."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from torchgguf.kernels import dequantize, quantize
from torchgguf.models import AutoModelForCausalLM
from torchgguf.nn import Linear, QuantizedLinear
from torchgguf.quants import QUANT_TYPES
from torchgguf.training.lora import adapter_state_dict, add_lora, load_adapter_state_dict
from torchgguf.training.lora.linear import LoraLinear

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])


def gradients(model):
    model.loss(IDS).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
