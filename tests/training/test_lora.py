"""LoRA beside PEFT: with the same weights and adapters, the same logits, gradients and names."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from torchgguf.training.lora import (
    adapter_settings,
    adapter_state_dict,
    add_lora,
    disable_adapters,
    load_adapter_state_dict,
    merge_adapters,
    merge_and_unload,
    remove_adapter,
    set_adapters,
    unmerge_adapters,
)

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
PREFIX = "base_model.model."


def randomize(state, seed=0):
    """Return other numbers for all tensors of an adapter: B of a new one is zero."""
    generator = torch.Generator().manual_seed(seed)
    # Magnitudes are positive.
    return {
        name: value * (1 + torch.rand(value.shape, generator=generator))
        if "magnitude" in name
        else torch.randn(value.shape, generator=generator) * 0.1
        for name, value in state.items()
    }


def theirs_and_ours(name, **settings):
    """Return PEFT's model and ours, with the same weights and the same adapter."""
    theirs = get_peft_model(reference(CASES[name]), LoraConfig(task_type="CAUSAL_LM", **settings))
    ours = counterpart(reference(CASES[name]))
    names = {"lora_alpha": "alpha", "lora_dropout": "dropout"}
    add_lora(ours, **{names.get(key, key): value for key, value in settings.items()})
    state = randomize(adapter_state_dict(ours))
    load_adapter_state_dict(ours, state)
    names = get_peft_model_state_dict(theirs, save_embedding_layers=False).keys()
    assert {f"{PREFIX}{name}" for name in state} == names
    for name, parameter in theirs.named_parameters():
        key = name.removeprefix(PREFIX).replace(".default", "").replace(".modules_to_save", "")
        if "magnitude" in key:
            key = key.removesuffix(".weight")
        if key in state:
            parameter.data.copy_(state[key])
    return theirs, ours


def gradients(model, prefix=""):
    loss = model.train()(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return {
        name.removeprefix(prefix): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


SETTINGS = {
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "rslora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": True},
    "regex": {"r": 2, "lora_alpha": 3, "target_modules": r".*layers\.[12]\.mlp\.(up|down)_proj"},
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": "all-linear",
        "exclude_modules": ["k_proj"],
        "rank_pattern": {"q_proj": 3, r"1\.mlp\.up_proj": 1},
        "alpha_pattern": {"self_attn.v_proj": 9},
    },
    "embedding": {"r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens", "lm_head"]},
    "whole": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj"],
        "modules_to_save": ["model.norm", "lm_head"],
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_as_peft(settings):
    theirs, ours = theirs_and_ours("llama-biases", **settings)
    expected, found = gradients(theirs, PREFIX), gradients(ours)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    with torch.no_grad():
        logits = theirs.eval()(input_ids=IDS).logits
        assert_close(ours.eval()(IDS).logits, logits, atol=1e-4, rtol=0)
        merge_adapters(ours)
        assert_close(ours(IDS).logits, logits, atol=1e-4, rtol=0)
        unmerge_adapters(ours)
        assert_close(merge_and_unload(ours)(IDS).logits, logits, atol=1e-4, rtol=0)
    assert not adapter_settings(ours)


@pytest.mark.parametrize("name", ["gpt2", "qwen35", "kimi", "gemma3"])
def test_all_linear_layers_are_those_of_peft(name):
    theirs_and_ours(name, r=2, target_modules="all-linear")


FUSED = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen3moe", FUSED),
        ("qwen3moe", FUSED[:1]),
        ("gpt-oss", FUSED[1:]),
        ("gpt-oss", FUSED),
        ("nemotronh-experts", ["experts.up_proj", "experts.down_proj"]),
    ],
)
def test_experts_as_peft(name, parameters):
    settings = {"r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": parameters}
    theirs, ours = theirs_and_ours(name, **settings)
    expected = gradients(theirs, PREFIX)
    with torch.no_grad():
        logits = theirs.eval()(input_ids=IDS).logits
        assert_close(ours.eval()(IDS).logits, logits, atol=1e-4, rtol=0)
        merge_adapters(ours)
        assert_close(ours(IDS).logits, logits, atol=1e-4, rtol=0)
        unmerge_adapters(ours)
    gradients(ours)
    found = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    assert sorted(g.norm().item() for g in found.values()) == pytest.approx(
        sorted(g.norm().item() for g in expected.values()), rel=1e-3
    )
    assert_close(merge_and_unload(ours).eval()(IDS).logits, logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_several_adapters():
    model = counterpart(reference(CASES["llama-tied"])).eval()
    plain = model(IDS).logits
    alone = {}
    for seed, (name, use_dora) in enumerate([("a", False), ("b", True)]):
        add_lora(model, 4, 8, ["q_proj", "down_proj"], use_dora=use_dora, adapter=name)
        assert_close(model(IDS).logits, plain, atol=1e-5, rtol=1e-5)
        load_adapter_state_dict(model, randomize(adapter_state_dict(model, name), seed), name)
        alone[name] = model(IDS).logits
        assert (alone[name] - plain).abs().max() > 0.01
        with disable_adapters(model):
            assert torch.equal(model(IDS).logits, plain)
    set_adapters(model, "a")
    assert torch.equal(model(IDS).logits, alone["a"])
    set_adapters(model, {"a": 0.0, "b": 1.0})
    assert_close(model(IDS).logits, alone["b"], atol=1e-5, rtol=0)
    set_adapters(model, {"a": 0.7, "b": 0.3})
    both = model(IDS).logits
    merge_adapters(model)
    assert_close(model(IDS).logits, both, atol=1e-4, rtol=0)
    with disable_adapters(model):
        assert torch.equal(model(IDS).logits, plain)
    set_adapters(model, ["b"])
    assert torch.equal(model(IDS).logits, alone["b"])
    remove_adapter(model, "a")
    assert torch.equal(model(IDS).logits, alone["b"])
    remove_adapter(model, "b")
    assert torch.equal(model(IDS).logits, plain)
    assert not any("lora" in name or "base_layer" in name for name, _ in model.named_modules())


def test_only_active_adapters_are_trained():
    model = counterpart(reference(CASES["llama"]))
    add_lora(model, 4, 8, ["q_proj"], adapter="a")
    add_lora(model, 4, 8, ["v_proj"], adapter="b")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".b." in name for name in trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["nothing"]}, r"target_modules \('nothing',\); linear layers are: down_proj, "),
        ({"target_modules": ["input_layernorm"]}, "is a RMSNorm, which LoRA cannot change"),
        ({"r": 0}, "r must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"adapter": "a.b"}, "has no dot"),
        ({"target_modules": ["embed_tokens"], "use_dora": True}, "unsupported for embeddings"),
    ],
    ids=str,
)
def test_errors(options, message):
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match=message) as error:
        add_lora(model, **options)
    assert "\n" not in str(error.value)


def test_errors_of_names():
    model = counterpart(reference(CASES["llama"]))
    with pytest.raises(ValueError, match=r"no adapter 'a'; its adapters: none: add_lora\(\) adds one"):
        set_adapters(model, "a")
    add_lora(model, 4, 8, ["q_proj"], adapter="b")
    with pytest.raises(ValueError, match="no adapter 'a'; its adapters: 'b'"):
        remove_adapter(model, "a")
    with pytest.raises(ValueError, match="has an adapter 'b' already"):
        add_lora(model, adapter="b")
    state = adapter_state_dict(model, "b")
    first = min(state)
    with pytest.raises(ValueError, match=f"the state lacks {first}"):
        load_adapter_state_dict(model, {}, "b")
    with pytest.raises(ValueError, match=f"{first} has shape"):
        load_adapter_state_dict(model, {**state, first: torch.zeros(3)}, "b")
    with pytest.raises(ValueError, match="has no parameter more"):
        load_adapter_state_dict(model, {**state, "more": torch.zeros(3)}, "b")


def test_seeds_repeat():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        model = counterpart(reference(CASES["llama"]))
        torch.manual_seed(4)
        add_lora(model)
        states.append(adapter_state_dict(model))
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())
