"""What a config.json says is done, or refused by an error that names it; nothing is silently ignored."""

import json

import pytest
import torch
import transformers

from tests.models.tiny import SIZES
from torchgguf.models import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaModel, Qwen2Config

REFUSED = {
    "dtype": (LlamaConfig, {"dtype": "bf16"}, r"'bf16'.*bfloat16"),
    "dtype of the old name": (LlamaConfig, {"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    "partial rotation": (LlamaConfig, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5"),
    "partial rotation, new place": (
        LlamaConfig,
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        r"partial_rotary_factor=0\.25",
    ),
    "another model": (LlamaConfig, {"model_type": "qwen2"}, "LlamaConfig is for .*'llama'.*'qwen2'"),
    "layers too few": (
        Qwen2Config,
        {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 2},
        "layer_types .*3 layers",
    ),
    "unknown layers": (
        Qwen2Config,
        {"num_hidden_layers": 2, "layer_types": ["full_attention", "chunked_attention"]},
        "layer_types .*chunked_attention",
    ),
}


@pytest.mark.parametrize(("kind", "values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(kind, values, words):
    with pytest.raises(ValueError, match=words):
        kind.from_dict(values)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype(key):
    config = LlamaConfig.from_dict({key: "bfloat16", **SIZES})
    assert config.dtype is torch.bfloat16
    assert AutoModel.from_config(config).dtype is torch.bfloat16
    assert AutoModelForCausalLM.from_config(config, dtype="float16").lm_head.weight.dtype is torch.float16
    assert AutoModel.from_config(config, dtype=torch.float64).dtype is torch.float64
    assert json.loads(config.to_json_string())["dtype"] == "bfloat16"


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2"])
def test_from_what_transformers_writes(kind):
    """Neutral values of what is not supported are no reason to refuse a config."""
    theirs = getattr(transformers, f"{kind}Config")(**SIZES, partial_rotary_factor=1.0).to_dict()
    ours = AutoConfig.for_model(**theirs).to_dict()
    assert {key: ours[key] for key in SIZES} == SIZES
    assert ours["rope_parameters"]["rope_theta"] == theirs["rope_parameters"]["rope_theta"]


def test_names_from_before_transformers_5():
    scaling = {"type": "linear", "factor": 2.0}
    config = LlamaConfig(rope_theta=5e5, rope_scaling=scaling)
    assert config.rope_theta == 5e5
    assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert LlamaConfig.from_dict(config.to_dict()) == config


def test_attention_is_the_models_own():
    """A config may be shared by models with different implementations, and says nothing of it."""
    config = LlamaConfig.from_dict(SIZES)
    with pytest.raises(ValueError, match=r"flash.*sdpa"):
        LlamaModel(config, attn_implementation="flash")
    ids = torch.arange(1, 9)[None]
    eager = LlamaModel(config, attn_implementation="eager").eval()
    sdpa = AutoModel.from_config(config).eval()
    sdpa.load_state_dict(eager.state_dict())
    output = eager(ids, output_attentions=True)
    assert all(not weights.triu(1).any() for weights in output.attentions)
    torch.testing.assert_close(output.last_hidden_state, sdpa(ids).last_hidden_state)
    sdpa.attn_implementation = "eager"
    torch.testing.assert_close(sdpa(ids, output_attentions=True).attentions, output.attentions)
