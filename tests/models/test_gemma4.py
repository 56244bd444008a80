"""Gemma 4: what released files and checkpoints contain beyond what models read, and what configs state."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.test_usual_tensors import same_model, saved, source, tensors
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import (
    AutoModelForCausalLM,
    CheckpointError,
    DynamicCache,
    Gemma4TextConfig,
    GGUFError,
    StaticCache,
    open_gguf,
)

IDS = torch.arange(24)[None] * 7 % 400


def unread(prefix: str, first: str, last: str) -> dict[str, torch.Tensor]:
    """Keys and values of layers that read those of others, which released checkpoints have all the same."""
    made: dict[str, torch.Tensor] = {}
    for layer in range(4, 8):
        size = 16 if layer % 2 == 0 else 32
        for i, name in enumerate((first, last)):
            made[f"{prefix}{layer}.{name}.weight"] = torch.full((size, 64), layer + i / 2)
        norm = "attn_k_norm" if prefix == "blk." else "self_attn.k_norm"
        made[f"{prefix}{layer}.{norm}.weight"] = torch.full((size,), float(layer))
    return made


@torch.no_grad()
def test_keys_that_no_layer_reads(tmp_path):
    """They stay in files and checkpoints, whichever is made from which, and change nothing."""
    original = reference(CASES["gemma4"])
    plain = saved("gemma4", tmp_path / "plain.gguf")
    extra = unread("blk.", "attn_k", "attn_v")
    with open_gguf(plain) as opened:
        info = opened.tensors["blk.0.attn_k.weight"]
    file = edited(plain, tmp_path / "full.gguf", tensors={n: source(info, t) for n, t in extra.items()})
    model = AutoModelForCausalLM.from_pretrained(file)
    assert_close(model(IDS).logits, original(IDS).logits, atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()

    model.save_pretrained(tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert_close(theirs(IDS).logits, original(IDS).logits, atol=1e-4, rtol=0)
    AutoModelForCausalLM.from_pretrained(tmp_path / "folder").save_gguf(tmp_path / "back.gguf")
    found = tensors(tmp_path / "back.gguf")
    assert all(torch.equal(found[name][1], tensor) for name, tensor in extra.items())
    assert found.keys() == tensors(file).keys()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_layers_read_the_keys_of_others_from_caches(kind):
    """Only layers with keys of their own have a state, and beams reorder what others read."""
    model = counterpart(reference(CASES["gemma4"]))
    cache = DynamicCache() if kind == "dynamic" else StaticCache(model.config, 32)
    expected = model(IDS, use_cache=False).logits
    parts = [model(part, cache=cache).logits for part in IDS.split([9, 1, 6, 8], dim=1)]
    assert_close(torch.cat(parts, dim=1), expected, atol=1e-4, rtol=0)
    assert {layer for layer, _ in cache.states()} == {0, 1, 2, 3}


def test_gates_and_ups_apart(tmp_path):
    """llama.cpp reads both forms: a model that is saved again has the usual one."""
    usual = saved("gemma4-experts", tmp_path / "usual.gguf")
    changes: dict[str, Any] = {}
    for name, (info, data) in tensors(usual).items():
        if "ffn_gate_up_exps" in name:
            gate, up = data.chunk(2, dim=1)
            changes |= {
                name: None,
                name.replace("gate_up", "gate"): source(info, gate.contiguous()),
                name.replace("gate_up", "up"): source(info, up.contiguous()),
            }
    assert len(changes) == 12
    same_model(usual, edited(usual, tmp_path / "apart.gguf", tensors=changes), tmp_path / "again.gguf")


def test_joined_queries_keys_and_values(tmp_path):
    """Of heads of both sizes."""
    usual = saved("gemma4", tmp_path / "usual.gguf")
    old, changes = tensors(usual), dict[str, Any]()
    for layer in range(4):
        names = [f"blk.{layer}.attn_{part}.weight" for part in "qkv"]
        joined = source(old[names[0]][0], torch.cat([old[name][1] for name in names]))
        changes |= {**dict.fromkeys(names), f"blk.{layer}.attn_qkv.weight": joined}
    same_model(usual, edited(usual, tmp_path / "joined.gguf", tensors=changes), tmp_path / "again.gguf")


PUBLISHED = {  # as the released config.json states them
    "num_hidden_layers": 6,
    "attention_k_eq_v": True,
    "num_key_value_heads": 4,
    "num_global_key_value_heads": 2,
    "global_head_dim": 64,
    "head_dim": 32,
    "use_bidirectional_attention": "vision",
}


def test_both_ways_to_state_the_sizes_of_layers():
    """The released fields, and what transformers makes of them."""
    theirs = transformers.Gemma4TextConfig(**PUBLISHED)
    for config in (Gemma4TextConfig(**PUBLISHED), Gemma4TextConfig.from_dict(theirs.to_dict())):
        assert (config.global_head_dim, config.num_global_key_value_heads) == (64, 2)
        assert config.rope_parameters == theirs.rope_parameters
        again = transformers.Gemma4TextConfig(**config.to_dict())
        assert again.to_dict()["per_layer_config"] == theirs.to_dict()["per_layer_config"]


REFUSED = {
    "other layers": ({"per_layer_config": {0: {"head_dim": 8}}}, "per_layer_config"),
    "other fields": ({"per_layer_config": {5: {"intermediate_size": 8}}}, "per_layer_config"),
    "heads of keys with values": (
        {"per_layer_config": {5: {"num_key_value_heads": 2}}},
        "requires attention_k_eq_v",
    ),
    "all positions": ({"use_bidirectional_attention": "all"}, "must be None or 'vision', got 'all'"),
    "a window in the last layer": ({"layer_types": ["sliding_attention"] * 6}, "the last of layer_types"),
    "keys of nobody": ({"num_kv_shared_layers": 5}, "none of these is of the kind 'full_attention'"),
    "all keys": ({"num_kv_shared_layers": 6}, "must be from 0 to 5, got 6"),
    "no experts": ({"enable_moe_block": True}, "requires num_experts"),
    "too many experts": (
        {"enable_moe_block": True, "num_experts": 2, "top_k_experts": 3, "moe_intermediate_size": 8},
        "top_k_experts must be from 1 to 2, got 3",
    ),
    "odd heads": ({"global_head_dim": 7}, "global_head_dim must be even"),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_configs_that_describe_no_model(fields, words):
    with pytest.raises(ValueError, match=words):
        Gemma4TextConfig(num_hidden_layers=6, **fields)


BROKEN = {
    "attention.shared_kv_layers": (8, "must be from 0 to block_count - 1, got 8"),
    "attention.head_count_kv": ([1, 2, 1, 1, 1, 1, 1, 1], "equal in layers of a kind"),
    "feed_forward_length": ([96] * 7, "must be one number or 8, got 7"),
    "rope.dimension_count_swa": (8, "must be attention.key_length_swa, 16, got 8"),
    "attention.key_length_swa": (0, "must be above 0"),
}


@pytest.mark.parametrize("key", BROKEN)
def test_files_that_describe_no_model(key, tmp_path):
    value, words = BROKEN[key]
    file = saved("gemma4", tmp_path / "tiny.gguf")
    broken = edited(file, tmp_path / "broken.gguf", metadata={f"gemma4.{key}": value})
    with pytest.raises(GGUFError, match=words):
        AutoModelForCausalLM.from_pretrained(broken)


@pytest.mark.parametrize("factors", [None, torch.tensor([1.0] * 4 + [2.0] * 12)])
def test_divisors_of_frequencies(factors, tmp_path):
    """Without them, or with others, the file is of a model that nobody runs alike."""
    file = saved("gemma4", tmp_path / "tiny.gguf")
    with open_gguf(file) as opened:
        info = opened.tensors["rope_freqs.weight"]
    change = None if factors is None else source(info, factors)
    broken = edited(file, tmp_path / "broken.gguf", tensors={"rope_freqs.weight": change})
    with pytest.raises(GGUFError, match=r"rope_freqs\.weight"):
        AutoModelForCausalLM.from_pretrained(broken)


def test_keys_that_readers_would_look_for_elsewhere(tmp_path):
    """llama.cpp finds them in the last two layers that have any, whatever their kind."""
    case = CASES["gemma4"].config
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    config = {**case, "num_hidden_layers": 4, "layer_types": kinds, "num_kv_shared_layers": 1}
    model = counterpart(reference(type(CASES["gemma4"])("Gemma4Text", config)))
    with pytest.raises(ValueError, match="readers give layer 3 the keys of layer 2"):
        model.save_gguf(tmp_path / "no.gguf")


@torch.no_grad()
def test_vectors_of_embeddings_that_are_not_those_of_tokens():
    theirs = reference(CASES["gemma4"])
    ours, x = counterpart(theirs), torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="require per_layer_inputs"):
        ours(inputs_embeds=x)
    vectors = theirs.model.get_per_layer_inputs(IDS[:, :5])
    assert_close(ours.model.get_per_layer_inputs(IDS[:, :5]), vectors)
    expected = theirs(inputs_embeds=x, per_layer_inputs=vectors).logits
    assert_close(ours(inputs_embeds=x, per_layer_inputs=vectors).logits, expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="with inputs_embeds only"):
        ours(IDS[:, :5], per_layer_inputs=vectors)


@torch.no_grad()
def test_scores_of_routers():
    theirs = reference(CASES["gemma4-experts"])
    expected = theirs(IDS, output_router_logits=True).router_logits
    actual = counterpart(theirs)(IDS, output_router_logits=True).router_logits
    assert len(actual) == len(expected) == 4
    for ours, other in zip(actual, expected, strict=True):
        assert_close(ours, other, atol=1e-5, rtol=0)


def test_a_checkpoint_with_values_beside_keys_that_are_values(tmp_path: Path):
    """A tensor that no model reads is an error, as everywhere."""
    counterpart(reference(CASES["gemma4-equal-odd-heads"])).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    stored = load_file(file)
    attention = "model.layers.1.self_attn"
    stored[f"{attention}.v_proj.weight"] = stored[f"{attention}.k_proj.weight"].clone()
    save_file(stored, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"unused tensors: model\.layers\.1\.self_attn\.v_proj"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["gemma4", "gemma4-experts", "gemma3n-shared"])
def test_a_larger_vocabulary(name, tmp_path):
    """Of both tables, as in transformers; and it is saved."""
    theirs = reference(CASES[name])
    ours = counterpart(theirs)
    theirs.resize_token_embeddings(410)
    ours.resize_token_embeddings(410)
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: p.shape for n, p in theirs.state_dict().items()
    }
    assert ours.config.vocab_size_per_layer_input == theirs.config.vocab_size_per_layer_input
    ours.save_gguf(tmp_path / "x.gguf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    assert again(IDS + 9).logits.shape == (1, 24, 410)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma4", "gemma4-experts", "gemma3n-shared"])
def test_packed_in_blocks(name, tmp_path, exact_products):
    """Tables, experts and all: the same numbers as unpacked, and the same file again."""
    file = saved(name, tmp_path / "x.gguf", "Q8_0")
    model = AutoModelForCausalLM.from_pretrained(file)
    plain = AutoModelForCausalLM.from_pretrained(file, dequantize=True)
    assert_close(model(IDS).logits, plain(IDS).logits, atol=1e-3, rtol=0)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
