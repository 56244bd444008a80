"""Gemma 3n: keys that llama.cpp wants in files and no layer reads, a shorter table, what files may state."""

import math

import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.test_usual_tensors import saved, tensors
from tests.models.tiny import CASES, Case, counterpart, reference
from tests.peers.llama_cpp import greedy_text
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoModelForCausalLM, AutoTokenizer, Gemma3nTextConfig, GGUFError

IDS = torch.arange(24)[None] * 7 % 400


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's vocabularies are missing")
def test_llama_cpp_runs_layers_without_keys(tmp_path):
    """It counts 20 layers with keys by itself. Zeros stand for those of the others."""
    config = {**CASES["gemma3n"].config, "num_hidden_layers": 22, "num_kv_shared_layers": 2}
    add_tokenizer(tmp_path, "gemma3n_text")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = counterpart(reference(Case("Gemma3nText", config)))
    model.save_gguf(tmp_path / "x.gguf", tokenizer=tokenizer)
    prompt = "The licenses for most software and other practical works"
    ids = tokenizer(prompt, return_tensors="pt")
    new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.shape[1] :]
    text = greedy_text(tmp_path / "x.gguf", prompt, tokens=8)
    assert tokenizer.decode(new, skip_special_tokens=True) == text


@torch.no_grad()
def test_keys_that_no_layer_reads(tmp_path):
    """Those of a file are written back; zeros do not become weights of a checkpoint."""
    file = saved("gemma3n-shared", tmp_path / "x.gguf")
    extra = {name: x for name, (_, x) in tensors(file).items() if name.startswith(("blk.4.", "blk.5."))}
    assert not any(x.any() for name, x in extra.items() if "attn_k" in name or "attn_v" in name)
    full = edited(file, tmp_path / "full.gguf", tensors={"blk.5.attn_v.weight": torch.randn(16, 64)})
    model = AutoModelForCausalLM.from_pretrained(full)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == full.read_bytes()
    model.save_pretrained(tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert_close(model(IDS % 390).logits, theirs(IDS % 390).logits, atol=1e-4, rtol=0)
    assert not any("layers.5.self_attn.k" in name or "5.self_attn.v" in name for name in theirs.state_dict())


def test_files_have_a_row_for_each_token(tmp_path):
    """Of tokens of images and sound they are zeros, as llama.cpp's converter writes them."""
    table = tensors(saved("gemma3n-shared", tmp_path / "x.gguf"))["per_layer_token_embd.weight"][1]
    assert table.shape == (400, 6 * 24) and not table[390:].any() and table[389].any()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf").config.vocab_size_per_layer_input == 400


def test_shares_of_gates_are_those_that_were_stated(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(saved("gemma3n-shared", tmp_path / "x.gguf"))
    assert model.config.activation_sparsity_pattern == [0.6, 0.0, 0.3, 0.0, 0.0, 0.95]
    assert Gemma3nTextConfig().activation_sparsity_pattern == [0.95] * 10 + [0.0] * 25


BROKEN = {
    "activation_sparsity_scale": ([0.5] * 5, "must be 6 numbers, one a layer"),
    "altup.active_idx": (4, "altup_active_idx must be below altup_num_inputs"),
    "altup.num_inputs": (3, "do not match"),
    "feed_forward_length": ([96, 0, 96, 96, 96, 96], "must be from 1 to"),
    "attention.shared_kv_layers": (5, "none of these is of the kind 'full_attention'"),
}


@pytest.mark.parametrize("key", BROKEN)
def test_files_that_describe_no_model(key, tmp_path):
    value, words = BROKEN[key]
    file = saved("gemma3n-shared", tmp_path / "tiny.gguf")
    broken = edited(file, tmp_path / "broken.gguf", metadata={f"gemma3n.{key}": value})
    with pytest.raises(GGUFError, match=words):
        AutoModelForCausalLM.from_pretrained(broken)


REFUSED = {
    "shares": ({"activation_sparsity_pattern": [1.0] * 5}, "from 0 to below 1"),
    "other layers": ({"intermediate_size": [8] * 4}, "one number for each layer, got 4"),
    "streams": ({"altup_num_inputs": 17}, "at most 16"),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_configs_that_describe_no_model(fields, words):
    with pytest.raises(ValueError, match=words):
        Gemma3nTextConfig(num_hidden_layers=5, num_kv_shared_layers=0, **fields)


def test_coefficients_are_bounded_in_training():
    """As in transformers: those of predictions and of corrections."""
    config = {**CASES["gemma3n-shared"].config, "altup_coef_clip": 0.1}
    theirs = reference(Case("Gemma3nText", config))
    ours = counterpart(theirs)
    ids = IDS % 390
    losses = [model.train()(ids, labels=ids).loss for model in (ours, theirs)]
    assert_close(losses[0], losses[1], atol=1e-5, rtol=0)
    assert math.isclose(ours.model.layers[0].altup.prediction_coefs.weight.abs().max(), 0.1, rel_tol=1e-6)
