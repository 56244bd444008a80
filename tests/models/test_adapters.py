"""PEFT beside our models with plain weights: adapters train as beside transformers' models."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from torchgguf.models import AutoModelForCausalLM

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def trained(adapted, steps=3):
    """Train adapters; return the losses."""
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(steps):
        loss = adapted.train()(input_ids=IDS, labels=IDS, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
        optimizer.step()
        losses.append(loss.item())
    adapted.eval()
    return losses


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"], ids=["two", "all"])
@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_as_with_transformers(name, targets, task, tmp_path):
    theirs, ours = reference(CASES[name]), counterpart(reference(CASES[name]))
    config = {"target_modules": targets, "task_type": task, "r": 4}
    theirs, ours = (get_peft_model(model, LoraConfig(**config)) for model in (theirs, ours))
    ours.load_state_dict(theirs.state_dict())
    assert trained(ours) == pytest.approx(trained(theirs), abs=1e-4)
    with torch.no_grad():
        expected = ours(input_ids=IDS).logits
        assert_close(expected, theirs(input_ids=IDS).logits, atol=1e-4, rtol=0)
        ours.save_pretrained(tmp_path / "adapter")
        for message in (ours.save_gguf, ours.get_base_model().save_pretrained):
            with pytest.raises(ValueError, match=r"_proj is an adapter of PEFT: .*merge_and_unload\(\)"):
                message(tmp_path / "no")
        assert not (tmp_path / "no").exists()
        again = PeftModel.from_pretrained(counterpart(reference(CASES[name])), tmp_path / "adapter").eval()
        assert_close(again(input_ids=IDS).logits, expected)
        merged = ours.merge_and_unload()
        merged.save_gguf(tmp_path / "merged.gguf")
        merged.save_pretrained(tmp_path / "merged")
        for place in ("merged.gguf", "merged"):
            model = AutoModelForCausalLM.from_pretrained(tmp_path / place)
            assert_close(model(IDS).logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["qwen35", "kimi", "deepseek3", "erniemoe"])
def test_all_layers_of_other_kinds(name):
    """Of recurrences, and of gates with biases: adapters are trained, and merged they compute the same."""
    model = counterpart(reference(CASES[name]))
    settings = {"target_modules": "all-linear", "r": 4}
    adapted = get_peft_model(model, LoraConfig(**settings))
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(2):
        losses.append(adapted.train()(input_ids=IDS, labels=IDS, use_cache=False).loss)
        losses[-1].backward()
        optimizer.step()
    assert losses[1] < losses[0]
    with torch.no_grad():
        expected = adapted.eval()(input_ids=IDS).logits
        assert_close(adapted.merge_and_unload()(IDS).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_gpt2_is_adapted_as_transformers_gpt2(tmp_path):
    """The same adapter on both: saved here, loaded there."""
    theirs = reference(CASES["gpt2"])
    adapted = get_peft_model(counterpart(theirs), LoraConfig(target_modules=["c_attn"])).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    expected = adapted(input_ids=IDS).logits
    adapted.save_pretrained(tmp_path / "adapter")
    for model in (counterpart(theirs), theirs):
        again = PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
        assert_close(again(IDS).logits, expected, atol=1e-4, rtol=0)
    merged = adapted.merge_and_unload()
    merged.save_gguf(tmp_path / "merged.gguf")
    assert_close(
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged.gguf")(IDS).logits,
        expected,
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant):
    """Behind a frozen embedding, asked for before or after the adapters."""
    losses = []
    for enable in (None, "before", "after"):
        torch.manual_seed(0)
        model = counterpart(reference(CASES["llama"]))
        options = {"use_reentrant": reentrant}
        if enable == "before":
            model.gradient_checkpointing_enable(options)
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        if enable == "after":
            model.gradient_checkpointing_enable(options)
        losses.append(trained(adapted))
    assert losses[1] == pytest.approx(losses[0])
    assert losses[2] == pytest.approx(losses[0])
