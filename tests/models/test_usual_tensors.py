"""Files whose writers chose other names or shapes of tensors, which llama.cpp reads, or read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import convert, greedy_text, run_converter
from tests.peers.vocabularies import BYTE_LEVEL
from tests.support import LLAMA_CPP
from torchgguf import AutoModelForCausalLM, GGUFError, open_gguf
from torchgguf.container import TensorInfo, TensorSource
from torchgguf.quants import quant_type

IDS = torch.arange(24)[None] * 7 % 400


def saved(name: str, path: Path, type: str | None = None) -> Path:
    counterpart(reference(CASES[name])).save_gguf(path, quantization=type)
    return path


def tensors(path: Path) -> dict[str, tuple[TensorInfo, torch.Tensor]]:
    with open_gguf(path, mmap=False) as file:
        return {name: (info, file[name].clone()) for name, info in file.tensors.items()}


def source(info: TensorInfo, data: torch.Tensor) -> TensorSource:
    row = data.shape[-1]
    if not data.dtype.is_floating_point:
        row = quant_type(info.type).weights_per_row(row)
    return TensorSource((*data.shape[:-1], row), info.type, lambda: data)


@torch.no_grad()
def same_model(usual: Path, unusual: Path, again: Path) -> None:
    """Both files are the same model, packed and plain, and one that is written back is the usual file."""
    for options in ({}, {"dequantize": True}):
        a, b = (AutoModelForCausalLM.from_pretrained(path, **options) for path in (usual, unusual))
        assert torch.equal(a(IDS).logits, b(IDS).logits)
        if not options:
            b.save_gguf(again)
    actual, expected = tensors(again), tensors(usual)
    assert actual.keys() == expected.keys()
    for name, (info, data) in expected.items():
        assert actual[name][0].type == info.type
        assert torch.equal(actual[name][1], data), name
    with open_gguf(usual) as first, open_gguf(again) as second:
        assert first.metadata == second.metadata


def with_fused_experts(old: dict[str, tuple[TensorInfo, torch.Tensor]]) -> dict[str, Any]:
    """What changes if gates and ups of experts are one tensor."""
    changes: dict[str, Any] = {}
    for name, (info, data) in old.items():
        if "ffn_gate_exps" in name:
            up = name.replace("gate", "up")
            fused = torch.cat([data, old[up][1]], dim=1)
            changes |= {name: None, up: None, name.replace("gate", "gate_up"): source(info, fused)}
    assert changes
    return changes


@pytest.mark.parametrize("type", ["Q8_0", None])
def test_older_files_contain_each_expert(tmp_path, type):
    """Of Mixtral, until April 2024; packed bytes stay packed."""
    usual = saved("mixtral", tmp_path / "usual.gguf", type)
    changes: dict[str, Any] = {}
    for name, (info, data) in tensors(usual).items():
        if "_exps" in name:
            changes[name] = None
            for expert, matrix in enumerate(data):
                changes[name.replace("_exps", f".{expert}")] = source(info, matrix)
    unusual = edited(usual, tmp_path / "unusual.gguf", tensors=changes)
    same_model(usual, unusual, tmp_path / "again.gguf")
    broken, missing = {"blk.1.ffn_up.1.weight": None}, r"missing tensors: blk\.1\.ffn_up_exps"
    with pytest.raises(GGUFError, match=missing):
        AutoModelForCausalLM.from_pretrained(edited(unusual, tmp_path / "broken.gguf", tensors=broken))


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("llama", "Q8_0"),
        ("llama-biases", None),
        ("llama-mqa-odd-heads", None),
        ("llama-head-dim", "Q8_0"),
        ("qwen2", "Q4_0"),
        ("qwen3moe", None),
        ("gemma2", None),
    ],
)
def test_queries_keys_and_values_fused(tmp_path, name, type):
    usual = saved(name, tmp_path / "usual.gguf", type)
    changes: dict[str, Any] = {}
    old = tensors(usual)
    for name, (info, data) in old.items():
        module, _, kind = name.rpartition(".")
        if module.endswith(".attn_q"):
            others = [old[f"{module[:-1]}{part}.{kind}"] for part in "kv"]
            if len({info.type, *(other.type for other, _ in others)}) == 1:
                joined = torch.cat([data, *(other for _, other in others)])
                changes |= {f"{module[:-1]}{part}.{kind}": None for part in "qkv"}
                changes[f"{module}kv.{kind}"] = source(info, joined)
    assert changes
    same_model(usual, edited(usual, tmp_path / "unusual.gguf", tensors=changes), tmp_path / "again.gguf")


def test_queries_keys_and_values_apart(tmp_path):
    """In files of architectures that have them fused."""
    for name in ("gpt2", "phi-mha-tied"):
        usual = saved(name, tmp_path / "usual.gguf")
        changes: dict[str, Any] = {}
        for tensor, (info, data) in tensors(usual).items():
            if "attn_qkv" in tensor:
                changes[tensor] = None
                for part, matrix in zip("qkv", data.chunk(3), strict=True):
                    changes[tensor.replace("attn_qkv", f"attn_{part}")] = source(info, matrix)
        assert changes
        same_model(usual, edited(usual, tmp_path / "unusual.gguf", tensors=changes), tmp_path / "again.gguf")


@pytest.mark.parametrize(("name", "type"), [("qwen3moe", "Q8_0"), ("mixtral", None), ("gpt-oss", None)])
def test_gates_and_ups_of_experts_fused(tmp_path, name, type):
    usual = saved(name, tmp_path / "usual.gguf", type)
    changes = with_fused_experts(tensors(usual))
    same_model(usual, edited(usual, tmp_path / "unusual.gguf", tensors=changes), tmp_path / "again.gguf")


def test_names_of_vectors_without_weight(tmp_path):
    usual = saved("llama-llama3", tmp_path / "usual.gguf")
    changes: dict[str, Any] = {}
    for tensor, (info, data) in tensors(usual).items():
        if data.dim() == 1:
            changes |= {tensor: None, tensor.removesuffix(".weight"): source(info, data)}
    assert {"rope_freqs", "output_norm", "blk.1.ffn_norm"} < changes.keys()
    same_model(usual, edited(usual, tmp_path / "unusual.gguf", tensors=changes), tmp_path / "again.gguf")


def test_a_head_that_repeats_the_embedding(tmp_path):
    usual = saved("gemma", tmp_path / "usual.gguf")
    info, embedding = tensors(usual)["token_embd.weight"]
    changes = {"output.weight": source(info, embedding)}
    same_model(usual, edited(usual, tmp_path / "unusual.gguf", tensors=changes), tmp_path / "again.gguf")
    for other in (source(info, embedding + 1), packed(embedding, "Q8_0")):
        broken = edited(usual, tmp_path / "broken.gguf", tensors={"output.weight": other})
        with pytest.raises(GGUFError, match=r"unused tensors: output\.weight"):
            AutoModelForCausalLM.from_pretrained(broken)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
def test_files_that_llama_cpp_fuses(tmp_path):
    for name in ("llama-biases", "qwen3moe"):
        case = reference(CASES[name])
        usual, split = convert({name: case}, tmp_path, {})[name], BYTE_LEVEL.get(case.config.model_type, "")
        fused = tmp_path / f"{name}-fused.gguf"
        arguments = [str(tmp_path / name), "--outfile", str(fused), "--outtype", "f32", "--fuse-qkv"]
        run_converter(arguments, split)
        assert "blk.0.attn_qkv.weight" in tensors(fused)
        same_model(usual, fused, tmp_path / "again.gguf")
        assert greedy_text(fused, "The licenses") == greedy_text(tmp_path / "again.gguf", "The licenses")
