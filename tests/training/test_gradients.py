"""Gradients of packed models with adapters are those of the unpacked ones, in FP32."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.models.tiny import CASES, counterpart, reference
from tests.quants.evidence import goldens
from torchgguf.kernels import dequantize, multiplying_in, quantize
from torchgguf.models import AutoModelForCausalLM
from torchgguf.nn import Linear, QuantizedLinear
from torchgguf.quants import quant_types
from torchgguf.training.lora import adapter_state_dict, add_lora, load_adapter_state_dict
from torchgguf.training.lora.experts import EXPERT_LAYERS
from torchgguf.training.lora.linear import LoraLinear
from torchgguf.training.lora.settings import LoraSettings

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])
GOLDENS = {golden.ggml_type: golden.packed for golden in goldens()}


@pytest.fixture(autouse=True)
def products_in_fp32():
    with multiplying_in(torch.float32):
        yield


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # Of what does not count, such as an expert that no token chose, both are zero.
        if gradient.abs().max() > 1e-6:
            cosine = F.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
            assert cosine >= 0.9999, name
            assert found[name].norm() == pytest.approx(gradient.norm().item(), rel=5e-3), name
        else:
            assert found[name].abs().max() <= 1e-6, name


def blocks_of(kind):
    """Return 5 rows of 512 weights: what ggml packed, or plain numbers."""
    if kind.dtype is not None:
        return quantize(torch.randn(5, 512).to(kind.dtype), kind)
    size = 512 // kind.block_size * kind.type_size
    rows = GOLDENS[kind.id].flatten()
    return rows.repeat(-(-5 * size // len(rows)))[: 5 * size].view(5, size).contiguous()


@pytest.mark.parametrize("rows", [3, 40], ids=["few", "many"])
@pytest.mark.parametrize("kind", quant_types(), ids=lambda kind: kind.name)
def test_every_type(kind, rows):
    blocks = blocks_of(kind)
    plain = Linear(512, 5, bias=False)
    plain.weight = torch.nn.Parameter(dequantize(blocks, kind))
    gradients = []
    for base in (QuantizedLinear.from_packed(blocks, kind), plain):
        torch.manual_seed(0)
        layer = LoraLinear(base.requires_grad_(False))
        layer.add("default", 4, 2.0, LoraSettings())
        layer.set_active({"default": 1.0})
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        x = torch.randn(rows, 512, requires_grad=True)
        (layer(x) * torch.randn(rows, 5)).sum().backward()
        gradients.append({"x": x.grad, **{n: p.grad for n, p in layer.named_parameters() if p.requires_grad}})
    check_equal(*gradients)


@pytest.mark.parametrize(
    "name", [*(name for name in CASES if "-" not in name), "gpt-oss", "nemotronh-experts"]
)
def test_every_architecture(name, tmp_path):
    original = counterpart(reference(CASES[name]))
    original.save_gguf(tmp_path / "x.gguf", quantization="Q8_0")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    plain = copy.deepcopy(packed).dequantize()
    has_experts = any(isinstance(layer, EXPERT_LAYERS) for layer in plain.modules())
    of_experts = ("experts.gate_up_proj", "experts.up_proj", "experts.down_proj") if has_experts else ()
    gradients = []
    for model in (packed, plain):
        add_lora(model, 4, 8, target_parameters=of_experts)
        state = adapter_state_dict(model)
        generator = torch.Generator().manual_seed(0)
        drawn = {n: torch.randn(t.shape, generator=generator) * 0.05 for n, t in sorted(state.items())}
        load_adapter_state_dict(model, drawn)
        model.eval().loss(IDS).backward()  # without dropout
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert all(gradient is not None for gradient in gradients[1].values())
    check_equal(*gradients)
