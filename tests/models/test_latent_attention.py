"""Attention to compressed keys and values: packed, cached, in files and in importance matrices."""

import re

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, Case, counterpart, reference
from torchgguf.container import GGUFError, open_gguf
from torchgguf.conversion.importance import ImportanceCollector
from torchgguf.models import AutoModelForCausalLM
from torchgguf.nn import KeyValues, QuantizedLatentProjection

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


def test_older_files_are_refused_with_a_reason(file, tmp_path):
    key = "deepseek2.attention.key_length_mla"
    old = edited(file, tmp_path / "old.gguf", {key: None})
    with pytest.raises(
        GGUFError, match=re.escape("attention.key_length_mla is missing: files from before 2025")
    ):
        AutoModelForCausalLM.from_pretrained(old)
    wrong = edited(file, tmp_path / "wrong.gguf", {"deepseek2.attention.value_length": 65})
    with pytest.raises(GGUFError, match=re.escape("attention.value_length must be 64, got 65")):
        AutoModelForCausalLM.from_pretrained(wrong)
    with open_gguf(file) as opened:
        assert opened.metadata[key] == 40


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
