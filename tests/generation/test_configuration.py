"""Settings are understood as transformers understands them, or refused by name."""

import json
import re

import pytest
import torch
import transformers

from tests.generation.conftest import Twins, prompts
from torchgguf.generation import GenerationConfig
from torchgguf.generation.configuration import FIELDS
from torchgguf.generation.foreign import FOREIGN, UNSUPPORTED
from torchgguf.generation.resolution import DEFAULTS, resolve


def test_field_names_and_defaults_are_those_of_transformers():
    theirs = transformers.GenerationConfig()
    unknown = [name for name in GenerationConfig.__dataclass_fields__ if not hasattr(theirs, name)]
    assert not unknown
    expected = theirs._get_default_generation_params()
    assert {name: expected[name] for name in DEFAULTS.settings()} == DEFAULTS.settings()


def test_every_setting_of_transformers_is_accounted_for():
    """Ours, refused, or of no influence: for speed, for assistants, which are refused, or about the file."""
    theirs = transformers.GenerationConfig()
    about_the_file = {"transformers_version", "_from_model_config"}
    assert set(theirs.to_dict()) - about_the_file == {*GenerationConfig().to_dict()} == {*FIELDS, *FOREIGN}
    neutral = theirs._get_default_generation_params()
    assert all(neutral.get(name) in (None, *values) for name, values in UNSUPPORTED.items())
    assert set(UNSUPPORTED) < set(FOREIGN)


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
        ("temperature", -1.0),
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("max_new_tokens", 0),
        ("num_return_sequences", 0),
        ("num_beams", 0),
        ("early_stopping", "sometimes"),
        ("max_time", 0),
        ("typical_p", 0.0),
        ("epsilon_cutoff", 1.0),
        ("eta_cutoff", -0.1),
        ("no_repeat_ngram_size", -1),
        ("bad_words_ids", [5]),
        ("bad_words_ids", [[5], []]),
        ("sequence_bias", {(): 1.0}),
        ("suppress_tokens", [-1]),
        ("forced_bos_token_id", True),
        ("exponential_decay_length_penalty", (3,)),
        ("cache_implementation", "hybrid"),
        ("max_cache_len", 0),
        *((name, object()) for name in FIELDS),
        ("max_length", "20"),
        ("max_new_tokens", 3.5),
        ("num_beams", True),
        ("temperature", "hot"),
        ("do_sample", 1),
        ("use_cache", "yes"),
        ("stop_strings", [5]),
        ("sequence_bias", [[[5], "1"]]),
        ("exponential_decay_length_penalty", (3, 1.1, 2)),
        ("eos_token_id", "</s>"),
        ("eos_token_id", [2, "</s>"]),
        ("pad_token_id", 0.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    read = {
        "do_sample": True,
        "num_beams": 2,
        "cache_implementation": "static",
        "return_dict_in_generate": True,
    }
    with pytest.raises(ValueError, match=f"{name} must be .*{re.escape(repr(value))}"):
        GenerationConfig(**read | {name: value})


def test_unknown_arguments_are_named():
    with pytest.raises(TypeError, match=r"'temprature'; did you mean 'temperature'\?"):
        resolve(GenerationConfig(), None, {"temprature": 0.5})
    with pytest.raises(TypeError, match="'frobnicate'"):
        resolve(GenerationConfig(), None, {"frobnicate": 1})


def test_sampling_settings_without_sampling_are_pointed_out():
    with pytest.warns(UserWarning, match="temperature, top_p have no effect without do_sample=True"):
        resolve(GenerationConfig(), None, {"temperature": 0.5, "top_p": 0.5})


SETTINGS = {
    "max_new_tokens": 7,
    "do_sample": True,
    "temperature": 0.5,
    "num_beams": 3,
    "early_stopping": "never",
    "length_penalty": 0.3,
    "eos_token_id": [2, 5],
    "pad_token_id": 0,
    "stop_strings": ["a", "b"],
    "bad_words_ids": [[5], [6, 7]],
    "cache_implementation": "static",
    "return_dict_in_generate": True,
    "output_scores": True,
}


def test_the_file_is_that_of_transformers(tmp_path):
    transformers.GenerationConfig(**SETTINGS).save_pretrained(tmp_path / "theirs")
    ours = GenerationConfig.from_pretrained(tmp_path / "theirs")
    assert ours == GenerationConfig(**SETTINGS)
    ours.save_pretrained(tmp_path / "ours" / "deep")
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "ours" / "deep")
    assert theirs == transformers.GenerationConfig(**SETTINGS)
    written = [(tmp_path / path / "generation_config.json").read_text() for path in ("theirs", "ours/deep")]
    assert json.loads(written[0]) == json.loads(written[1])


def test_the_file_of_a_model_is_of_both(tmp_path, hf_llama):
    hf_llama.save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (1, 2, 0)


def test_biases_survive_the_file(tmp_path):
    GenerationConfig(sequence_bias={(5, 6): -2.0, (7,): 1.5}).save_pretrained(tmp_path)
    pairs = [[[5, 6], -2.0], [[7], 1.5]]
    assert GenerationConfig.from_pretrained(tmp_path).sequence_bias == pairs
    assert transformers.GenerationConfig.from_pretrained(tmp_path).sequence_bias == pairs


def test_what_changes_nothing_is_kept(tmp_path):
    values = {
        "num_beam_groups": 1,
        "guidance_scale": None,
        "chat_format": "chatml",
        "transformers_version": "4.51",
    }
    (tmp_path / "generation_config.json").write_text(json.dumps({"top_k": 3, **values}))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.top_k == 3
    config.save_pretrained(tmp_path)
    del values["guidance_scale"]
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"top_k": 3, **values}


@pytest.mark.parametrize(
    ("name", "value"),
    [("guidance_scale", 1.5), ("num_beam_groups", 2), ("watermarking_config", {"greenlist_ratio": 0.5})],
)
def test_what_changes_the_result_and_is_unknown_is_refused(name, value):
    message = re.escape(f"{name}={value!r} is not supported")
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**{name: value})
    with pytest.raises(ValueError, match=message):
        resolve(None, None, {name: value})
    for neutral in (None, *UNSUPPORTED[name]):
        assert resolve(None, None, {name: neutral}) == resolve(None, None, {})


def test_arguments_win_over_the_file(tmp_path):
    GenerationConfig(top_k=3, top_p=0.5).save_pretrained(tmp_path, "other.json")
    config = GenerationConfig.from_pretrained(tmp_path, "other.json", top_k=4, local_files_only=True)
    assert (config.top_k, config.top_p) == (4, 0.5)
    with pytest.raises(TypeError, match="GenerationConfig has no topk"):
        GenerationConfig.from_pretrained(tmp_path, "other.json", topk=4)


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generation_config\.json"):
        GenerationConfig.from_pretrained(tmp_path)
    for text, message in (("{", "is no JSON"), ("[1]", "holds no JSON object"), ("\xff", "is no JSON")):
        (tmp_path / "generation_config.json").write_bytes(text.encode("latin1"))
        with pytest.raises(ValueError, match=rf"generation_config\.json {message}"):
            GenerationConfig.from_pretrained(tmp_path)


def test_from_a_models_own_config():
    config = transformers.GPT2Config(eos_token_id=5, pad_token_id=7, bos_token_id=4, use_cache=False)
    for source in (config, {**config.to_dict(), "num_beams": 3}):
        ours = GenerationConfig.from_model_config(source)
        theirs = transformers.GenerationConfig.from_model_config(source)
        assert ours.settings().items() <= theirs.to_dict().items()
        assert (ours.eos_token_id, ours.num_beams) == (5, theirs.num_beams)
        assert ours.use_cache is None  # which there is about training


def test_configs_of_transformers_are_taken(twins: Twins):
    config = transformers.GenerationConfig(num_beams=3, max_new_tokens=5, eos_token_id=[8, 9], pad_token_id=1)
    theirs, ours = (model.generate(**prompts(), generation_config=config) for model in twins)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_return_sequences": 2}, "needs do_sample=True or num_beams: greedy decoding has one answer"),
        ({"exponential_decay_length_penalty": (1, 1.1)}, "needs an eos_token_id"),
        ({"forced_eos_token_id": [2, 3], "suppress_tokens": [2, 3, 4]}, "forced_eos_token_id=.* no token"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        resolve(None, None, settings)


def test_beam_settings_without_beams_are_pointed_out():
    with pytest.warns(UserWarning, match="length_penalty has no effect without num_beams above 1"):
        resolve(None, None, {"length_penalty": 0.5, "early_stopping": False})
