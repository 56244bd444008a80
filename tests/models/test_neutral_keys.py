"""Keys that llama.cpp's own writer states of every architecture, and keys that nobody understands."""

import logging
import math
from typing import Any

import pytest
import torch

from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import AutoConfig, AutoModelForCausalLM, GGUFError, open_gguf

KINDS = (
    "llama",
    "mistral-sliding",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "glm4moe",
    "minimax",
    "erniemoe",
    "gemma2",
    "gemma3",
    "phi",
    "gpt2",
    "bloom",
)
# What llama-model-saver.cpp writes for parameters that a model does not have. Unsigned -1 is "unset".
ABSENT: dict[str, Any] = {
    "activation.situ_beta": 1.0,
    "attention.clamp_kqv": 0.0,
    "attention.group_norm_epsilon": 0.0,
    "attention.group_norm_groups": 0,
    "attention.indexer.head_count": 0,
    "attention.indexer.kpool_select_tail": True,
    "attention.key_length_mla": 0,
    "attention.key_length_mla_swa": 0,
    "attention.kv_lora_rank": 0,
    "attention.max_alibi_bias": 0.0,
    "attention.output_scale": 0.0,
    "attention.q_lora_rank": 0,
    "attention.relative_buckets_count": 0,
    "attention.rope_pattern": 1,
    "attention.temperature_length": 0,
    "attention.value_scale": 0.0,
    "attn_logit_softcapping": 50.0,
    "attn_res.block_size": 0,
    "decoder_block_count": 3,
    "decoder_start_token_id": 2**32 - 1,
    "deepstack_mapping": [-1] * 4,
    "dense_2_feat_in": 0,
    "expert_gating_func": 0,
    "expert_group_count": 0,
    "expert_group_scale": 0.05000000074505806,
    "expert_shared_count": 0,
    "expert_weights_norm": False,
    "expert_weights_scale": 0.0,
    "final_logit_softcapping": 30.0,
    "interleave_moe_layer_step": 0,
    "kda.gate_lower_bound": -math.inf,
    "leading_dense_block_count": 0,
    "moe_every_n_layers": 0,
    "n_deepstack_layers": 0,
    "nextn_predict_layers": 0,
    "pooling_type": 2**32 - 1,
    "rope.dimension_sections": [0, 0, 0, 0],
    "rope.scaling.yarn_log_multiplier": 0.0,
    "router_logit_softcapping": 30.0,
    "ssm.conv_kernel": 0,
    "ssm.inner_size": 0,
    "swiglu_clamp_exp": [0.0, 0.0, 0.0],
    "token_shift_count": 2,
    "wkv.head_size": 0,
}
ROPE = {
    "rope.dimension_count": 16,
    "rope.freq_base": 10000.0,
    "rope.freq_base_swa": 10000.0,
    "rope.scaling.attn_factor": 1.0,
    "rope.scaling.factor": 0.0,
    "rope.scaling.finetuned": False,
    "rope.scaling.original_context_length": 256,
    "rope.scaling.type": "linear",
}


@pytest.fixture(scope="module", params=KINDS)
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / f"{request.param}.gguf"
    counterpart(reference(CASES[request.param])).save_gguf(path)
    return path


@torch.no_grad()
def test_what_llama_cpp_states_of_every_model(file, tmp_path):
    """Nothing changes, and the keys are written back."""
    with open_gguf(file) as original:
        name, stated = original.metadata["general.architecture"], original.metadata.copy()
    width, heads = (stated[f"{name}.{key}"] for key in ("embedding_length", "attention.head_count"))
    added = {**ABSENT, "embedding_length_out": width, "vocab_size": 400}
    size = stated.get(f"{name}.attention.key_length", width // heads)
    for length in ("key_length", "value_length", "key_length_swa", "value_length_swa"):
        added[f"attention.{length}"] = size
    if name == "bloom":
        added["attention.max_alibi_bias"] = 8.0
    if name == "gemma3":  # which reads it
        added["final_logit_softcapping"] = 0.0
    if f"{name}.rope.freq_base" not in stated:
        added |= ROPE
    added = {f"{name}.{key}": value for key, value in added.items() if f"{name}.{key}" not in stated}
    path = edited(file, tmp_path / "stated.gguf", added)
    model = AutoModelForCausalLM.from_pretrained(path)
    ids = torch.arange(24)[None]
    assert torch.equal(model(ids).logits, AutoModelForCausalLM.from_pretrained(file)(ids).logits)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "values",
    [
        {"nextn_predict_layers": 1},
        {"attention.key_length_swa": 8},
        {"attention.clamp_kqv": 8.0},
        {"expert_weights_scale": 2.5},
        {"pooling_type": 9},
        {"attention.wobble": 0},
        {"rope.freq_base_swa": 500.0},
    ],
    ids=str,
)
def test_other_values_are_errors_that_say_how_to_go_on(values, tmp_path, caplog):
    (key,) = values
    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "model.gguf")
    path = edited(tmp_path / "model.gguf", tmp_path / "x.gguf", {f"llama.{k}": v for k, v in values.items()})
    with pytest.raises(GGUFError, match=rf"{key}.*ignore_metadata") as error:
        AutoModelForCausalLM.from_pretrained(path)
    assert "\n" not in str(error.value)
    for name in (key, f"llama.{key}"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            AutoModelForCausalLM.from_pretrained(path, ignore_metadata=[name])
        assert f"llama.{key} = {values[key]} is ignored" in caplog.text
    assert AutoConfig.from_pretrained(path, ignore_metadata=[key]).hidden_size == 64
    with pytest.raises(TypeError, match="must be a list"):
        AutoModelForCausalLM.from_pretrained(path, ignore_metadata=key)
