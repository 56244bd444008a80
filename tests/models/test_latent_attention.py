"""Attention to compressed keys and values: packed, cached, in files and in importance matrices."""

import re

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, Case, counterpart, reference
from tests.peers.llama_cpp import convert, greedy_text
from tests.support import LLAMA_CPP
from torchgguf.container import GGUFError, TensorSource, TensorType, open_gguf
from torchgguf.conversion.importance import ImportanceCollector
from torchgguf.models import AutoModelForCausalLM
from torchgguf.nn import KeyValues, QuantizedLatentProjection
from torchgguf.quants import dequantize, quantize

# Sizes of which whole blocks can be made.
CASE = Case(
    "DeepseekV3", {**CASES["deepseek3"].config, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32}
)
TEXT = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("latent") / "packed.gguf"
    counterpart(reference(CASE)).save_gguf(path, quantization="Q8_0")
    return path


@torch.no_grad()
def test_a_packed_model(file, tmp_path, exact_products):
    packed, plain = (AutoModelForCausalLM.from_pretrained(file, dequantize=how) for how in (False, True))
    assert isinstance(packed.model.layers[0].self_attn.kv_b_proj, QuantizedLatentProjection)
    assert_close(packed(TEXT).logits, plain(TEXT).logits, atol=1e-4, rtol=0)
    theirs = packed.to_transformers()
    assert isinstance(theirs.model.layers[0].self_attn.kv_b_proj, QuantizedLatentProjection)
    assert_close(theirs(TEXT).logits, plain(TEXT).logits, atol=1e-4, rtol=0)
    packed.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    packed.save_pretrained(tmp_path / "folder")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert_close(again(TEXT).logits, plain(TEXT).logits, atol=1e-5, rtol=0)


def before_the_split(new, path):
    """Return the file of a model as it was before 2025-04: one matrix, and sizes of expanded heads."""
    with open_gguf(new) as opened:
        stated = {key.partition(".")[2]: value for key, value in opened.metadata.items()}
        tensors: dict[str, torch.Tensor | None] = {}
        for name in (name for name in opened.tensors if "attn_k_b" in name):
            keys, values = opened[name].float(), opened[name.replace("k_b", "v_b")].float()
            fused = torch.cat((keys.transpose(1, 2), values), dim=1).flatten(0, 1).contiguous()
            tensors |= {name: None, name.replace("k_b", "v_b"): None, name.replace("k_b", "kv_b"): fused}
    sizes = {
        "attention.head_count_kv": stated["attention.head_count"],
        "attention.key_length": stated["attention.key_length_mla"],
        "attention.value_length": stated["attention.value_length_mla"],
        "attention.key_length_mla": None,
        "attention.value_length_mla": None,
    }
    return edited(new, path, metadata={f"deepseek2.{key}": v for key, v in sizes.items()}, tensors=tensors)


@torch.no_grad()
def test_files_from_before_keys_and_values_were_apart(tmp_path, exact_products):
    new = tmp_path / "new.gguf"
    counterpart(reference(CASE)).save_gguf(new)
    old = before_the_split(new, tmp_path / "old.gguf")
    expected = AutoModelForCausalLM.from_pretrained(new)(TEXT).logits
    model = AutoModelForCausalLM.from_pretrained(old)
    assert_close(model(TEXT).logits, expected, atol=1e-5, rtol=0)
    model.save_gguf(tmp_path / "again.gguf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again.gguf")
    assert_close(again(TEXT).logits, expected, atol=1e-5, rtol=0)
    # Packed: values stay in their blocks, keys are unpacked.
    with open_gguf(old) as opened:
        fused = {name: opened[name].clone() for name in opened.tensors if "attn_kv_b" in name}
    blocks = {name: quantize(matrix, "Q8_0") for name, matrix in fused.items()}
    sources = {
        name: TensorSource(tuple(fused[name].shape), TensorType.Q8_0, lambda rows=rows: rows)
        for name, rows in blocks.items()
    }
    packed = edited(old, tmp_path / "packed.gguf", tensors=sources)
    rounded = {name: dequantize(rows, "Q8_0") for name, rows in blocks.items()}
    plain = edited(old, tmp_path / "rounded.gguf", tensors=rounded)
    model = AutoModelForCausalLM.from_pretrained(packed)
    assert model.model.layers[0].self_attn.kv_b_proj.quant_types["v"].name == "Q8_0"
    assert_close(model(TEXT).logits, AutoModelForCausalLM.from_pretrained(plain)(TEXT).logits)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
def test_llama_cpp_reads_the_older_file_alike(tmp_path):
    new = convert({"deepseek3": reference(CASES["deepseek3"])}, tmp_path, {})["deepseek3"]
    old, prompt = before_the_split(new, tmp_path / "old.gguf"), "The licenses for most software"
    assert greedy_text(old, prompt) == greedy_text(new, prompt)


@torch.no_grad()
def test_the_cache_stores_latent_vectors_only(file):
    model = AutoModelForCausalLM.from_pretrained(file)
    cache = model(TEXT, use_cache=True).cache
    state = cache.state(0, KeyValues)
    config = model.config
    assert state.keys.shape == (2, 1, 24, config.kv_lora_rank + config.qk_rope_head_dim)
    assert state.values.numel() == 0


@torch.no_grad()
def test_importances_are_of_each_head(file):
    """Each head has its own columns, in one row of sums with one count, as in llama-imatrix's files."""
    model = AutoModelForCausalLM.from_pretrained(file, dequantize=True)
    layer, seen = model.model.layers[1].self_attn.kv_b_proj, []
    hook = layer.register_forward_pre_hook(lambda layer, arguments: seen.append(arguments[0].double()))
    with ImportanceCollector(model) as collector:
        collector.read(TEXT)
    hook.remove()
    matrix = collector.matrix()
    for name, rows in zip(("attn_k_b", "attn_v_b"), seen, strict=True):
        found = matrix.activations[f"blk.1.{name}.weight"]
        assert_close(found.sums.double(), rows.square().sum((0, 2)).flatten()[None], rtol=1e-5, atol=1e-6)
        assert found.counts.tolist() == [48]


def test_a_new_model_has_finite_weights():
    model = AutoModelForCausalLM.from_config(counterpart(reference(CASE)).config)
    weight = model.model.layers[0].self_attn.kv_b_proj.weight
    assert weight.std().item() == pytest.approx(0.15, rel=0.1)  # of all tiny models


def test_sizes_of_older_files_with_tensors_of_newer_ones_are_refused(file, tmp_path):
    key = "deepseek2.attention.key_length_mla"
    mixed = edited(file, tmp_path / "mixed.gguf", {key: None})
    with pytest.raises(GGUFError, match=r"attention\.head_count_kv must be 4, got 1"):
        AutoModelForCausalLM.from_pretrained(mixed)
    wrong = edited(file, tmp_path / "wrong.gguf", {"deepseek2.attention.value_length": 65})
    with pytest.raises(GGUFError, match=r"attention\.value_length must be 64, got 65"):
        AutoModelForCausalLM.from_pretrained(wrong)


@torch.no_grad()
def test_queries_that_are_not_compressed_may_be_stated(tmp_path):
    """llama.cpp's own writer states a size of zero."""
    model = counterpart(reference(CASES["deepseek2"]))
    model.save_gguf(tmp_path / "without.gguf")
    key = "deepseek2.attention.q_lora_rank"
    stated = edited(tmp_path / "without.gguf", tmp_path / "with.gguf", {key: 0})
    again = AutoModelForCausalLM.from_pretrained(stated)
    assert again.config.q_lora_rank is None
    assert_close(again(TEXT).logits, model(TEXT).logits, atol=1e-4, rtol=0)
    wrong = edited(stated, tmp_path / "wrong.gguf", {key: -1})
    with pytest.raises(GGUFError, match=re.escape("attention.q_lora_rank must be 0 or the size of a tensor")):
        AutoModelForCausalLM.from_pretrained(wrong)
