"""Routers with biases and groups: their scores, losses and dtypes, beside transformers'."""

import re

import pytest
import torch
import transformers
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, UNWRITABLE, Case, counterpart, reference
from torchgguf.container import GGUFError
from torchgguf.models import AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config, Glm4MoeConfig

MIXTURES = (
    "glm4moe-groups",
    "minimax",
    "minimax-tied-odd-heads",
    "erniemoe",
    "erniemoe-biases",
    "deepseek2-yarn",
    "deepseek2-groups",
    "deepseek3-yarn-groups",
    "exaonemoe-odd-heads",
    "nemotronh-experts-groups",
)
BIAS = "e_score_correction_bias"


@pytest.mark.parametrize("name", MIXTURES)
def test_scores_losses_and_gradients(name):
    model = reference((CASES | UNWRITABLE)[name])
    twin = counterpart(model).train()
    ids = torch.randint(0, 400, (2, 14), generator=torch.Generator().manual_seed(0))
    inputs = {"attention_mask": torch.ones_like(ids), "labels": ids, "output_router_logits": True}
    expected, actual = model(ids, **inputs), twin(ids, **inputs)
    assert actual.keys() == tuple(expected.keys())
    assert_close(actual.loss, expected.loss, atol=1e-5, rtol=0)
    if "aux_loss" in expected:
        assert_close(actual.aux_loss, expected.aux_loss, atol=1e-5, rtol=0)
    assert_close(actual.router_logits, expected.router_logits, atol=1e-5, rtol=1e-4)
    expected.loss.backward()
    actual.loss.backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        assert_close(gradients.pop(name), parameter.grad, atol=1e-4, rtol=1e-3, msg=name)
    assert all(gradient is None for gradient in gradients.values())


WIDE = ("glm4moe", "minimax", "erniemoe", "exaonemoe", "deepseek2-yarn", "deepseek3", "nemotronh-experts")


@pytest.mark.parametrize("name", WIDE)
def test_the_same_parameters_stay_wide(name, tmp_path):
    """Those that decide about experts, in models of half precision; and biases learn by no gradient."""
    reference(CASES[name]).save_pretrained(tmp_path)
    options = {"dtype": torch.bfloat16}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
    for key, value in theirs.state_dict().items():
        assert ours.state_dict()[key].dtype is value.dtype, key
        assert torch.equal(ours.state_dict()[key], value), key
    learning = {name for name, parameter in ours.named_parameters() if parameter.requires_grad}
    # transformers forgets, when it loads a parameter, that it has no gradient.
    assert learning == {name for name, _ in theirs.named_parameters() if not name.endswith(BIAS)}
    ids = torch.randint(0, 400, (2, 14), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual, expected = (model(ids).logits.float() for model in (ours, theirs))
    assert (actual - expected).std() < 0.05 * expected.std()


def test_biases_change_the_choice_and_not_the_weights():
    """A bias that lifts one expert over all others is in no weight."""
    model = counterpart(reference(CASES["minimax"]))
    block = model.model.layers[0].mlp
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    lifted = torch.zeros(7)
    lifted[3] = 100.0
    block.e_score_correction_bias.data = lifted
    weights, chosen = block.choose(logits)
    assert (chosen[:, 0] == 3).all()
    expected = torch.sigmoid(logits).gather(1, chosen)
    assert_close(weights, expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Glm4MoeConfig(n_group=3), "n_group must divide n_routed_experts=128 into groups of two"),
        (lambda: DeepseekV3Config(n_group=8, topk_group=9), "got n_group=8 and topk_group=9"),
        (lambda: DeepseekV3Config(n_group=128, topk_group=2), "but 2 groups contain 4 experts"),
        (lambda: DeepseekV2Config(topk_method="noaux_tc"), "these are: greedy, group_limited_greedy"),
        (lambda: DeepseekV2Config(num_key_value_heads=4), "must be num_attention_heads=32"),
    ],
)
def test_what_no_router_can_do_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_groups_without_a_choice_among_them_are_not_written(tmp_path):
    model = counterpart(reference(CASES["deepseek2-yarn"]))
    model.config.n_group = 4
    with pytest.raises(ValueError, match="GGUF does not support topk_method='greedy' with n_group=4"):
        model.save_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("name", "key", "value", "text"),
    [
        ("minimax", "minimax-m2.expert_gating_func", 1, "expert_gating_func = 1: this model supports 2 only"),
        ("glm4moe", "glm4moe.expert_group_count", -1, "expert_group_count must be from 0 to 400, got -1"),
        ("glm4moe", "glm4moe.expert_shared_count", -1, "expert_shared_count must be 0 or above, got -1"),
        ("glm4moe", "glm4moe.expert_weights_norm", 1, "expert_weights_norm must be one bool, got 1"),
        ("glm4moe", "glm4moe.expert_weights_scale", -1.0, "expert_weights_scale must be above 0"),
    ],
)
def test_what_files_state_wrongly_is_refused(name, key, value, text, tmp_path):
    counterpart(reference(CASES[name])).save_gguf(tmp_path / "right.gguf")
    wrong = edited(tmp_path / "right.gguf", tmp_path / "wrong.gguf", {key: value})
    with pytest.raises(GGUFError, match=re.escape(text)):
        AutoModelForCausalLM.from_pretrained(wrong)


@torch.no_grad()
def test_what_files_do_not_state_is_neutral(tmp_path):
    """No groups, no factor, and the function that models of this kind have."""
    case = CASES["glm4moe"]
    model = counterpart(reference(Case(case.kind, {**case.config, "routed_scaling_factor": 1.0})))
    model.save_gguf(tmp_path / "full.gguf")
    keys = ("group_count", "group_used_count", "weights_scale", "gating_func")
    for value in (None, 0):
        changes = {f"glm4moe.expert_{key}": value for key in keys}
        short = edited(tmp_path / "full.gguf", tmp_path / f"{value}.gguf", changes)
        ids = torch.randint(0, 400, (2, 14), generator=torch.Generator().manual_seed(0))
        assert torch.equal(AutoModelForCausalLM.from_pretrained(short)(ids).logits, model(ids).logits)
