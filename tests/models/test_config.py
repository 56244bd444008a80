"""What a config.json says is done, or refused by an error that names it; nothing is silently ignored."""

import copy
import json

import pytest
import torch
import transformers

from tests.models.tiny import CASES, SIZES, reference
from torchgguf.models import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaModel,
    Ministral3Config,
    Qwen2Config,
)
from torchgguf.models.registry import MODEL_TYPES

REFUSED = {
    "dtype": (LlamaConfig, {"dtype": "bf16"}, r"'bf16'.*bfloat16"),
    "dtype of the old name": (LlamaConfig, {"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    "partial rotation": (LlamaConfig, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5"),
    "partial rotation, new place": (
        LlamaConfig,
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        r"partial_rotary_factor=0\.25",
    ),
    "two bases": (
        LlamaConfig,
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "rope_theta=500000.0 differs from 10000.0 in rope_parameters: pass one of them",
    ),
    "text for a factor": (
        LlamaConfig,
        {"rope_scaling": {"type": "linear", "factor": "2"}},
        r"rope_parameters\['factor'\] must be above 0 and finite, got '2'",
    ),
    "scaling without a name": (
        LlamaConfig,
        {"rope_scaling": {"rope_type": [1]}},
        r"rope_type must be a string, got \[1\]",
    ),
    "list for a scaling": (LlamaConfig, {"rope_scaling": [1]}, "rope_scaling must be dict or None"),
    "not a number": (LlamaConfig, {"rms_norm_eps": float("nan")}, "rms_norm_eps=nan is invalid"),
    "labels without numbers": (LlamaConfig, {"id2label": {"a": "b"}}, r"id2label must be numbers.*'a'"),
    "another model": (
        LlamaConfig,
        {"model_type": "qwen2"},
        "model_type of LlamaConfig must be 'llama', got 'qwen2'",
    ),
    "encoder": (LlamaConfig, {"is_encoder_decoder": True}, "is_encoder_decoder=True"),
    "outputs": (LlamaConfig, {"output_hidden_states": True}, "output_hidden_states=True"),
    "cross attention": (GPT2Config, {"add_cross_attention": True}, "add_cross_attention=True"),
    "text for a number": (LlamaConfig, {"hidden_size": "64"}, "hidden_size must be int, .*'64'"),
    "truth for a number": (LlamaConfig, {"hidden_size": True}, "hidden_size must be int, .*True"),
    "nothing for a number": (LlamaConfig, {"vocab_size": None}, "vocab_size must be int, .*None"),
    "list for a dict": (LlamaConfig, {"rope_parameters": [1]}, "rope_parameters must be dict or None"),
    "second name too": (
        GPT2Config,
        {"n_embd": 8, "hidden_size": 16},
        "hidden_size and n_embd are one field, got 16 and 8",
    ),
    "layers without end": (Qwen2Config, {"num_hidden_layers": 10**12}, "num_hidden_layers=1000000000000"),
    "labels without end": (LlamaConfig, {"num_labels": 10**12}, "num_labels=1000000000000"),
    "no heads": (LlamaConfig, {"num_attention_heads": 0, "num_key_value_heads": 2}, "0 attention heads"),
    "no heads of GPT-2": (GPT2Config, {"n_head": 0}, "n_head=0"),
    "list for a dtype": (LlamaConfig, {"dtype": ["float16"]}, r"dtype=\['float16'\] is not supported"),
    "name of a method": (LlamaConfig, {"to_dict": 1}, "to_dict is not a field"),
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
    for make in (lambda: kind.from_dict(values), lambda: kind(**values)):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype(key):
    config = LlamaConfig.from_dict({key: "bfloat16", **SIZES})
    assert config.dtype is torch.bfloat16
    assert AutoModel.from_config(config).dtype is torch.bfloat16
    assert AutoModelForCausalLM.from_config(config, dtype="float16").lm_head.weight.dtype is torch.float16
    assert AutoModel.from_config(config, dtype=torch.float64).dtype is torch.float64
    assert json.loads(config.to_json_string())["dtype"] == "bfloat16"


@pytest.mark.parametrize("name", CASES)
def test_from_what_transformers_writes_and_back(name):
    """Neutral values of what is not supported are no reason to refuse a config, nor what no field is for."""
    theirs = reference(CASES[name]).config.to_dict() | {"colour": "red"}
    ours = AutoConfig.for_model(**theirs)
    assert ours.colour == "red"
    assert type(ours)(**theirs).to_dict() == ours.to_dict()
    again = getattr(transformers, type(ours).__name__)(**ours.to_dict()).to_dict()
    for key in theirs.keys() - {"rope_parameters", "layer_types"}:  # which may state defaults or not
        if (key, theirs[key]) != ("head_dim", None):  # the size that follows from others
            assert (again[key] or None) == (theirs[key] or None), key


@pytest.mark.parametrize("model_type", [kind for kind in MODEL_TYPES if kind in transformers.CONFIG_MAPPING])
def test_defaults_are_those_of_transformers(model_type):
    """A config.json need not state what is a default there."""
    theirs, ours = transformers.CONFIG_MAPPING[model_type](), AutoConfig.for_model(model_type)
    expected, actual = theirs.to_dict(), ours.to_dict()
    for key in (expected.keys() & actual.keys()) - {"rope_parameters", "transformers_version"}:
        if expected[key] is not None:  # else it follows from others
            assert (actual[key] or None) == (expected[key] or None), key
    rotation = expected.get("rope_parameters") or {}
    for key in rotation.keys() - {"type", "max_position_embeddings"}:
        neutral = 1.0 if key == "partial_rotary_factor" else None
        assert ours.rope_parameters.get(key, neutral) == rotation[key], key


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("gpt_oss", {"rope_theta": 5e5}),
        ("gpt_oss", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("ministral3", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
    ],
)
def test_older_names_of_models_with_a_default_scaling(model_type, values):
    expected = transformers.CONFIG_MAPPING[model_type](**copy.deepcopy(values)).rope_parameters
    actual = AutoConfig.for_model(model_type, **values).rope_parameters
    assert {key: actual[key] for key in expected.keys() - {"type"}} == {
        key: value for key, value in expected.items() if key != "type"
    }


def test_gpt2_states_its_length_for_the_converter_too(tmp_path):
    """llama.cpp's converter (conversion/gpt2.py) asks for `n_ctx`."""
    config = GPT2Config(n_positions=77)
    assert config.to_dict()["n_ctx"] == 77
    again = GPT2Config(**config.to_dict())
    again.n_positions = 78
    again.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["n_ctx"] == 78


def test_names_from_before_transformers_5():
    scaling = {"type": "linear", "factor": 2.0}
    config = LlamaConfig(rope_theta=5e5, rope_scaling=scaling)
    assert config.rope_theta == 5e5
    assert config.rope_scaling == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    assert LlamaConfig.from_dict(config.to_dict()) == config
    # Also where a config.json of today is to be changed by the older name.
    changed = LlamaConfig.from_dict(config.to_dict(), rope_scaling={"type": "linear", "factor": 3.0})
    assert changed.rope_parameters == {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e5}


def test_a_base_beside_a_default_scaling():
    """It applies, as in transformers to gpt-oss; there, Ministral 3 ignores it."""
    config, default = Ministral3Config(rope_theta=5e5), Ministral3Config()
    assert config.rope_parameters == {**default.rope_parameters, "rope_theta": 5e5}


def test_changes_by_name():
    config = LlamaConfig.from_dict(
        {**SIZES, "num_labels": 3, "colour": "green"}, hidden_size=32, colour="red"
    )
    assert (config.hidden_size, config.num_labels, config.colour) == (32, 3, "red")
    assert LlamaConfig.from_dict(config.to_dict(), num_labels=5).label2id["LABEL_4"] == 4
    assert LlamaConfig.from_dict(config.to_dict(), id2label={0: "no"}).num_labels == 1
    assert GPT2Config.from_dict({"n_embd": 8, "n_head": 4}, hidden_size=16).n_embd == 16
    with pytest.raises(TypeError, match="'color'"):
        LlamaConfig.from_dict(SIZES, color="red")


def test_written_in_full(tmp_path):
    """Not all programs that read a config.json know the defaults; only what is None is left out."""
    LlamaConfig(**SIZES, dtype="bfloat16", id2label={0: "no", 1: "yes"}).save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written["rms_norm_eps"] == 1e-6 and written["hidden_act"] == "silu"
    assert written["dtype"] == "bfloat16" and written["id2label"] == {"0": "no", "1": "yes"}
    assert None not in written.values()
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "new")
    assert theirs.id2label == {0: "no", 1: "yes"} and theirs.dtype is torch.bfloat16


def test_attention_asked_for_by_a_config():
    config = LlamaConfig.from_dict(SIZES, attn_implementation="eager")
    assert LlamaModel(config).attn_implementation == "eager"
    assert AutoModel.from_config(config).attn_implementation == "eager"
    assert AutoModel.from_config(config, attn_implementation="sdpa").attn_implementation == "sdpa"
    assert "eager" not in config.to_json_string(use_diff=False)
    config.attn_implementation = None
    assert LlamaModel(config).attn_implementation == "sdpa"


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
