"""The plugin of vLLM: what can be shown of it without vLLM, and a server where there is one."""

import logging
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from importlib.util import find_spec

import pytest
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from tests.support import ROOT
from torchgguf.vllm_plugin.ignored_names import only_unexpected

GROUP = "vllm.general_plugins"
VLLM_PYTHON = os.environ.get("VLLM_PYTHON") or (sys.executable if find_spec("vllm") else None)


def plugin() -> EntryPoint:
    """What vLLM looks up, as the project declares it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return EntryPoint("torchgguf", project["entry-points"][GROUP]["torchgguf"], GROUP)


def names(model) -> list[str]:
    """All that a checkpoint of the model holds."""
    return list(model.state_dict())


@pytest.fixture(scope="module")
def gpt2():
    return GPT2Model(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2))


def test_vllm_finds_it_without_importing_a_model_or_torch():
    code = f"""
import sys
from importlib.metadata import EntryPoint
assert callable(EntryPoint("torchgguf", {plugin().value!r}, {GROUP!r}).load())
assert not {{"torch", "transformers", "vllm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_vllm_that_lacks_what_is_mended_is_told_of_and_left_alone(caplog):
    with caplog.at_level(logging.WARNING):
        plugin().load()()
    assert "No module named 'vllm'. GPT-2 with `--model-impl transformers` may fail" in caplog.text


def test_no_weight_of_gpt2_is_taken_for_an_unexpected_one(gpt2):
    for pattern in map(re.compile, gpt2._keys_to_ignore_on_load_unexpected):
        mended = only_unexpected(pattern, names(gpt2))
        for name in names(gpt2):
            assert not mended.search(name)
            assert not mended.search(f"transformer.{name}")  # as a model with a head has it


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_causal_masks_of_old_gpt2_checkpoints_are_still_ignored(gpt2, prefix):
    patterns = map(re.compile, gpt2._keys_to_ignore_on_load_unexpected)
    mended = [only_unexpected(pattern, names(gpt2)) for pattern in patterns]
    for mask in ("h.0.attn.bias", "h.1.attn.bias", "h.0.crossattention.bias"):
        assert any(pattern.search(prefix + mask) for pattern in mended)


def test_patterns_that_find_no_weight_of_the_model_stay_as_they_are():
    model = LlamaModel(
        LlamaConfig(
            vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    )
    pattern = re.compile(r"rotary_emb\.inv_freq")
    assert only_unexpected(pattern, names(model)) is pattern


@pytest.mark.skipif(VLLM_PYTHON is None, reason="no vLLM here; VLLM_PYTHON may name a Python that has it")
@pytest.mark.slow
def test_vllm_serves_the_tokens_that_generate_gives():
    command = [sys.executable, ROOT / "examples" / "serve_with_vllm.py", "--vllm-python", VLLM_PYTHON]
    result = subprocess.run([*command, "--", "--enforce-eager"], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
