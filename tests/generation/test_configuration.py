"""Settings are understood as transformers understands them, or refused by name."""

import pytest
import transformers

from torchgguf.generation import GenerationConfig
from torchgguf.generation.resolution import DEFAULTS, resolve


def test_field_names_and_defaults_are_those_of_transformers():
    theirs = transformers.GenerationConfig()
    unknown = [name for name in GenerationConfig.__dataclass_fields__ if not hasattr(theirs, name)]
    assert not unknown
    expected = theirs._get_default_generation_params()
    assert {name: expected[name] for name in DEFAULTS.to_dict()} == DEFAULTS.to_dict()


def test_the_call_wins_over_the_given_config_over_the_models():
    model = GenerationConfig(eos_token_id=1, pad_token_id=2, top_k=7, do_sample=True)
    given = GenerationConfig(eos_token_id=[3, 4], temperature=0.5)
    config = resolve(model, given, {"temperature": 0.9})
    assert (config.eos_token_ids, config.pad_token_id, config.top_k) == ([3, 4], 2, 7)
    assert (config.temperature, config.top_p) == (0.9, 1.0)


def test_none_in_the_call_means_none():
    model = GenerationConfig(eos_token_id=1, top_k=7, do_sample=True)
    given = GenerationConfig(eos_token_id=None, temperature=0.5)
    assert resolve(model, given, {}).eos_token_ids == [1]
    config = resolve(model, given, dict.fromkeys(["eos_token_id", "top_k", "num_return_sequences"]))
    assert (config.eos_token_ids, config.top_k, config.temperature) == ([], None, 0.5)


@pytest.mark.parametrize(
    "name, value",
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("max_new_tokens", 0),
        ("num_return_sequences", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        GenerationConfig(**{name: value})


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match=r"'temprature'; did you mean 'temperature'\?"):
        resolve(GenerationConfig(), None, {"temprature": 0.5})
    with pytest.raises(TypeError, match="'frobnicate'"):
        resolve(GenerationConfig(), None, {"frobnicate": 1})


def test_sampling_settings_without_sampling_are_pointed_out():
    with pytest.warns(UserWarning, match="temperature, top_p have no effect without do_sample=True"):
        resolve(GenerationConfig(), None, {"temperature": 0.5, "top_p": 0.5})
