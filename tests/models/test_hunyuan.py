"""Hunyuan's rotary embedding: released checkpoints state `alpha`, files the base that follows from it."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.tiny import CASES, Case, counterpart, reference
from torchgguf.models import AutoModelForCausalLM

# As in config.json of the released checkpoints.
SCALING = {
    "alpha": 1000.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "type": "dynamic",
}
# As llama.cpp's converter (conversion/hunyuan.py) states it.
STATED = {
    "rope.scaling.type": "none",
    "rope.scaling.factor": 1.0,
    "rope.scaling.original_context_length": 262144,
}


@torch.no_grad()
def test_alpha_is_a_larger_base(tmp_path):
    case = Case("HunYuanDenseV1", {**CASES["hunyuan"].config, "rope_scaling": dict(SCALING)})
    theirs, ids = reference(case), torch.arange(60).view(1, 60)
    ours, expected = counterpart(theirs), theirs(ids).logits
    assert_close(ours(ids).logits, expected, atol=1e-4, rtol=0)
    assert ours.config.rope_parameters["alpha"] == 1000.0  # other programs read it from config.json

    ours.save_gguf(tmp_path / "a.gguf")
    stated = {f"hunyuan-dense.{key}": value for key, value in STATED.items()}
    for path in (tmp_path / "a.gguf", edited(tmp_path / "a.gguf", tmp_path / "b.gguf", stated)):
        again = AutoModelForCausalLM.from_pretrained(path)
        assert again.config.rope_parameters["rope_theta"] == pytest.approx(10000 * 1000 ** (16 / 14))
        assert_close(again(ids).logits, expected, atol=1e-4, rtol=0)
