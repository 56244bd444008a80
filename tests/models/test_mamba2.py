"""Mixers of Mamba 2: bounds of step sizes, older configs, and what files do not support."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.mamba2_cases import MAMBA2, NEMOTRON_H
from tests.models.tiny import Case, counterpart, reference
from torchgguf.models import FalconH1Config, FalconH1ForCausalLM, NemotronHConfig, NemotronHForCausalLM


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("mamba2", {"time_step_limit": (0.3, 0.8)}),
        ("nemotronh", {"time_step_min": 0.3, "time_step_max": 0.5}),
    ],
)
@torch.no_grad()
def test_step_sizes_have_bounds(name, bounds):
    """Of Nemotron-H the lower one alone, as in transformers."""
    case = MAMBA2[name]
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    bounded = reference(Case(case.kind, {**case.config, **bounds}))
    ours = counterpart(bounded)
    assert_close(ours(ids, use_cache=False).logits, bounded(ids).logits, atol=1e-4, rtol=0)
    assert not torch.allclose(reference(case)(ids).logits, bounded(ids).logits, atol=1e-2)


def test_bounds_are_not_in_files(tmp_path):
    model = counterpart(reference(Case("Mamba2", {**MAMBA2["mamba2"].config, "time_step_limit": (0.3, 0.8)})))
    with pytest.raises(ValueError, match="GGUF does not support time_step_limit"):
        model.save_gguf(tmp_path / "x.gguf")


def test_letters_of_released_configs():
    config = NemotronHConfig(hybrid_override_pattern="M-*E")
    assert config.layer_types == ["linear_attention", "mlp", "full_attention", "moe"]
    assert config.num_hidden_layers == 4
    with pytest.raises(ValueError, match="layer_types must name"):
        NemotronHConfig(hybrid_override_pattern="MX")


def test_mlps_beside_experts_are_not_in_files(tmp_path):
    sizes = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 8, "vocab_size": 64}
    experts = {"moe_intermediate_size": 8, "moe_shared_expert_intermediate_size": 8, "intermediate_size": 8}
    config = NemotronHConfig(hybrid_override_pattern="M-E", **NEMOTRON_H, **sizes, **experts)
    with pytest.raises(ValueError, match="GGUF does not support layers of MLPs beside layers of experts"):
        NemotronHForCausalLM(config).save_gguf(tmp_path / "x.gguf")


def test_one_factor_for_tied_weights(tmp_path):
    sizes = {"hidden_size": 64, "vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8}
    mixers = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_state": 8, "mamba_norm_before_gate": False}
    config = FalconH1Config(embedding_multiplier=2.0, tie_word_embeddings=True, **sizes, **mixers)
    with pytest.raises(ValueError, match="embedding_multiplier beside another lm_head_multiplier"):
        FalconH1ForCausalLM(config).save_gguf(tmp_path / "x.gguf")
