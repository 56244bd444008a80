"""gpt-oss beyond what all architectures show: fields that files do not state, new weights, caches."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, SIZES, counterpart, reference
from torchgguf import StaticCache
from torchgguf.models import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM


@pytest.fixture(scope="module")
def ours():
    return counterpart(reference(CASES["gpt-oss-mqa-yarn"]))


@pytest.fixture(scope="module")
def file(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt-oss") / "tiny.gguf"
    ours.save_gguf(path)
    return path


def ids() -> torch.Tensor:
    return torch.randint(0, 400, (2, 20), generator=torch.Generator().manual_seed(0))


def test_defaults_of_rotary_embedding():
    assert GptOssConfig().rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    }
    older = GptOssConfig(rope_theta=1000.0, rope_scaling={"rope_type": "default"})
    assert older.rope_parameters == {"rope_type": "default", "rope_theta": 1000.0}


@torch.no_grad()
@pytest.mark.parametrize(
    "metadata",
    [
        {"feed_forward_length": 7, "expert_feed_forward_length": None},
        {"feed_forward_length": None},
        {"feed_forward_length": 7},
    ],
    ids=["by the tensors", "without another", "unlike another"],
)
def test_the_width_of_experts(ours, file, tmp_path, metadata):
    """That of MLPs is another, which this model does not have."""
    changed = {f"gpt-oss.{key}": value for key, value in metadata.items()}
    model = AutoModelForCausalLM.from_pretrained(edited(file, tmp_path / "x.gguf", changed))
    assert model.config.intermediate_size == ours.config.intermediate_size
    assert_close(model(ids()).logits, ours(ids()).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("truncate", True), ("swiglu_alpha", 1.0), ("swiglu_limit", 5.0), ("attention_bias", False)],
)
def test_what_no_file_can_say(ours, tmp_path, field, value):
    config = GptOssConfig.from_dict(ours.config.to_dict())
    if field == "truncate":
        config.rope_parameters[field] = value
    else:
        setattr(config, field, value)
    with pytest.raises(ValueError, match=f"GGUF does not support .*{field}"):
        GptOssForCausalLM(config).save_gguf(tmp_path / "x.gguf")


def test_new_weights():
    torch.manual_seed(0)
    model = GptOssForCausalLM(GptOssConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2))
    experts, sinks = model.model.layers[0].mlp.experts, model.model.layers[0].self_attn.sinks
    assert not experts.gate_up_proj_bias.any() and not experts.down_proj_bias.any()
    assert experts.gate_up_proj.std().item() == pytest.approx(0.15, rel=0.05)
    assert 0 < sinks.std() < 0.6
    assert not model.model.layers[0].mlp.router.bias.any()
    model(ids(), labels=ids()).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert sinks.grad.any()


@torch.no_grad()
def test_caches(ours):
    """Windows shorter than the text, and a cache of fixed size."""
    model = counterpart(reference(CASES["gpt-oss"]))
    expected = model.generate(ids(), max_new_tokens=8, do_sample=False)
    plain = model.generate(ids(), max_new_tokens=8, do_sample=False, use_cache=False)
    cache = StaticCache(model.config, max_cache_len=32)
    fixed = model.generate(ids(), max_new_tokens=8, do_sample=False, past_key_values=cache)
    assert torch.equal(expected, plain) and torch.equal(expected, fixed)
