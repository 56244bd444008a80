"""What files state of generation: off-values mean off, nonsense stops nothing, all is written back."""

import json
import logging

import pytest
import torch
import transformers

from tests.conversion.folders import publish
from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import AutoModelForCausalLM, GenerationConfig, convert_to_checkpoint, convert_to_gguf
from torchgguf.cli.options import Options
from torchgguf.generation.gguf_settings import sampling_settings
from torchgguf.generation.resolution import DEFAULTS, resolve, settings_of

ODD = [
    ({"top_k": -5}, {"top_k": 0}),
    ({"top_k": 20.0}, {"top_k": 20}),
    ({"temperature": -1.0}, {"temperature": 0.0}),
    ({"top_p": 1.5}, {"top_p": 1.0}),
    ({"min_p": -0.5}, {"min_p": 0.0}),
    ({"repetition_penalty": 0}, {"repetition_penalty": 1.0}),
    ({"num_beams": 0}, {}),
    ({"max_new_tokens": 0}, {}),
    ({"max_length": "20"}, {}),
    ({"eos_token_id": "2"}, {}),
    ({"bos_token_id": [1]}, {}),
    ({"stop_strings": [""]}, {}),
    ({"cache_implementation": "hybrid"}, {}),
    ({"temperature": float("nan")}, {}),
    ({"penalty_alpha": 0.6, "num_beam_groups": 3}, {}),
]


@pytest.mark.parametrize(("stated", "meant"), ODD, ids=str)
def test_nonsense_is_warned_about_once_and_written_back(tmp_path, stated, meant, caplog):
    (tmp_path / "generation_config.json").write_text(json.dumps(stated | {"pad_token_id": 7}))
    for _ in range(2):
        config = GenerationConfig.from_pretrained(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert all(word in caplog.text for word in (str(tmp_path), "generation_config.json", *stated))
    assert config.settings() == meant | {"pad_token_id": 7}
    merged = resolve(config, None, {"max_new_tokens": 3}).settings()
    assert merged == DEFAULTS.settings() | meant | {
        "pad_token_id": 7,
        "max_new_tokens": 3,
        "prefill_chunk_size": 512,
    }
    config.save_pretrained(tmp_path / "again")
    again = (tmp_path / "again" / "generation_config.json").read_text()
    assert json.dumps(json.loads(again)) == json.dumps(dict(sorted({**stated, "pad_token_id": 7}.items())))
    for name in stated:  # what is set later counts
        setattr(config, name, None)
    assert config.to_diff_dict() == {"pad_token_id": 7}


def test_temperature_zero_is_greedy():
    model = counterpart(reference(CASES["llama"]))
    ids, options = torch.tensor([[5, 6, 7]]), {"max_new_tokens": 4, "eos_token_id": None}
    greedy = model.generate(ids, do_sample=False, **options)
    assert torch.equal(model.generate(ids, do_sample=False, temperature=0.0, **options), greedy)
    assert torch.equal(model.generate(ids, temperature=0, **options), greedy)
    with pytest.warns(UserWarning, match="temperature=0 is greedy decoding"):
        assert torch.equal(model.generate(ids, do_sample=True, temperature=0.0, **options), greedy)
    model.generation_config = GenerationConfig(do_sample=True)
    assert torch.equal(model.generate(ids, temperature=0.0, **options), greedy)


# What `general.sampling.*` state, and what it means.
SAMPLING = [
    (
        {"temp": 0.6, "top_k": 20, "top_p": 0.95},
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
    ({"top_k": -1}, {"do_sample": True, "top_k": 0}),
    ({"top_k": 0}, {"do_sample": True, "top_k": 0}),
    ({"top_p": 1.0}, {"do_sample": True, "top_p": 1.0}),
    ({"top_p": 1.5}, {"do_sample": True, "top_p": 1.0}),
    ({"top_p": -0.5}, {"do_sample": True, "top_p": 0}),
    ({"min_p": -1.0}, {"do_sample": True, "min_p": 0.0}),
    ({"min_p": 2.0}, {"do_sample": True, "min_p": 1.0}),
    ({"temp": 0.0}, {"do_sample": False}),
    ({"temp": -1.0, "penalty_repeat": 1.5}, {"do_sample": False, "repetition_penalty": 1.5}),
    ({"penalty_repeat": 1.0}, {"do_sample": True, "repetition_penalty": 1.0}),
    ({"penalty_repeat": 0.0}, {"do_sample": True, "repetition_penalty": 1.0}),
    ({"penalty_repeat": 1.5, "penalty_last_n": 0}, {"do_sample": True, "repetition_penalty": 1.0}),
    ({"temp": "0.5x"}, {"do_sample": True, "temperature": 0.5}),
    ({"temp": "hot"}, {}),
    (
        {"temp": 0.5, "top_p": 0.5, "sequence": "temperature"},
        {"do_sample": True, "temperature": 0.5, "top_p": 1.0},
    ),
    ({"mirostat": 0, "xtc_probability": 0.0}, {}),
    ({}, {}),
]


@pytest.mark.parametrize(("stated", "meant"), SAMPLING, ids=str)
def test_sampling_keys_mean_what_they_mean_in_llama_cpp(stated, meant, caplog):
    assert sampling_settings({f"general.sampling.{key}": value for key, value in stated.items()}) == meant
    assert not caplog.text


def test_unsupported_sampling_is_named(caplog):
    sampling_settings({"general.sampling.mirostat": 2, "general.sampling.xtc_probability": 0.5})
    assert "general.sampling.mirostat=2" in caplog.text
    assert "general.sampling.xtc_probability=0.5" in caplog.text


def test_sampling_is_the_same_everywhere(tmp_path):
    """In Python, after a conversion, and in commands, below what the user says."""
    path = convert_to_gguf(publish("llama", tmp_path / "llama"), tmp_path / "plain.gguf")
    stated = {"temp": 0.6, "top_k": -1, "penalty_repeat": 1.5}
    edited(path, tmp_path / "x.gguf", {f"general.sampling.{key}": value for key, value in stated.items()})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf")
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()
    convert_to_checkpoint(tmp_path / "x.gguf", tmp_path / "folder")
    folder = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    meant = {"do_sample": True, "temperature": 0.6, "top_k": 0, "repetition_penalty": 1.5}
    alone = GenerationConfig.from_pretrained(tmp_path / "x.gguf")
    for config in (model.generation_config, folder.generation_config, alone):
        assert {name: value for name, value in config.settings().items() if "token" not in name} == meant
    of_command = Options().generation_config(settings_of(model.generation_config)).settings()
    assert of_command == {**meant, "top_p": 0.95, "min_p": 0.05}
    said = Options(temperature=0.9, repetition_penalty=1.0).generation_config(meant).settings()
    assert said == {**of_command, "temperature": 0.9, "repetition_penalty": 1.0}
    assert Options(temperature=0.0).generation_config(meant).do_sample is False
    assert Options().generation_config({"do_sample": False}).do_sample is False
    assert Options(temperature=0.9).generation_config({"do_sample": False}).do_sample is True


def test_a_config_is_read_from_wherever_it_is(tmp_path):
    GenerationConfig(top_k=3).save_pretrained(tmp_path / "sub")
    file = tmp_path / "sub" / "generation_config.json"
    for config in (
        GenerationConfig.from_pretrained(file),
        GenerationConfig.from_pretrained(tmp_path / "sub"),
        GenerationConfig.from_pretrained(tmp_path, subfolder="sub"),
    ):
        assert config == GenerationConfig(top_k=3)
    config, unused = GenerationConfig.from_pretrained(file, foo=1, top_k=4, return_unused_kwargs=True)
    assert (config.top_k, unused) == (4, {"foo": 1})


def test_methods_are_those_of_transformers(tmp_path):
    settings = {"top_k": 3, "do_sample": True, "num_beam_groups": 1, "eos_token_id": [2, 3]}
    ours, theirs = GenerationConfig(**settings), transformers.GenerationConfig(**settings)
    names = {name for name in dir(theirs) if not name.startswith("_")}
    elsewhere = {"dict_dtype_to_str", "get_generation_mode", "push_to_hub", "transformers_version"}
    assert names - set(dir(ours)) <= elsewhere
    assert ours.to_dict().items() <= theirs.to_dict().items()
    assert ours.to_diff_dict().items() <= theirs.to_diff_dict().items()
    written = [json.loads(each.to_json_string(ignore_metadata=True)) for each in (ours, theirs)]
    assert written[0] == written[1]
    updates = {"top_k": 9, "temperature": 0.5, "odd": 1}
    assert ours.update(**updates) == theirs.update(**updates) == {"odd": 1}
    assert ours.update(defaults_only=True, top_k=1, top_p=0.5) == theirs.update(
        defaults_only=True, top_k=1, top_p=0.5
    )
    assert ours.to_dict().items() <= theirs.to_dict().items()
    ours.to_json_file(tmp_path / "a.json")
    assert transformers.GenerationConfig.from_pretrained(tmp_path, "a.json") == theirs
    assert hash(ours) == hash(GenerationConfig(**ours.to_diff_dict()))
    with pytest.raises(ValueError, match="top_k must be"):
        ours.update(top_k=-3)
    with pytest.raises(ValueError, match="push_to_hub"):
        ours.save_pretrained(tmp_path, push_to_hub=True)
