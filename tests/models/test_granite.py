"""Granite's multipliers: with keys that files lack, and values that files do not support."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.files import edited
from tests.models.mamba2_cases import ATTENTION, GRANITE
from tests.models.tiny import CASES, Case, counterpart, reference
from tests.peers.llama_cpp import convert
from tests.support import LLAMA_CPP
from torchgguf.container import GGUFError, open_gguf
from torchgguf.models import AutoModelForCausalLM, GraniteConfig

KEYS = ("attention.scale", "embedding_scale", "residual_scale", "logit_scale")
FIELDS = ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling")


@pytest.fixture(scope="module")
def ours():
    return counterpart(reference(CASES["granite"]))


@pytest.fixture(scope="module")
def file(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("granite") / "tiny.gguf"
    ours.save_gguf(path)
    return path


@pytest.mark.parametrize("value", [None, 0.0], ids=["missing", "zero"])
def test_without_keys_they_have_no_effect(file, tmp_path, value):
    """To llama.cpp, zero is no multiplier; scores are then scaled as in other models."""
    changed = {f"granite.{key}": value for key in KEYS}
    config = AutoModelForCausalLM.from_pretrained(edited(file, tmp_path / "x.gguf", changed)).config
    assert [getattr(config, field) for field in FIELDS] == [0.25, 1.0, 1.0, 1.0]  # heads of 16


def test_layers_without_rotation(file, tmp_path):
    path = edited(file, tmp_path / "x.gguf", {"granite.rope.scaling.finetuned": False})
    with pytest.raises(GGUFError, match=r"rope.scaling.finetuned = False: layers without rotation"):
        AutoModelForCausalLM.from_pretrained(path)


@pytest.mark.parametrize("field", FIELDS[:3])
def test_zero_is_not_written(ours, tmp_path, field):
    ours.config, config = GraniteConfig.from_dict({**ours.config.to_dict(), field: 0.0}), ours.config
    try:
        with pytest.raises(ValueError, match=f"GGUF does not support {field}=0"):
            ours.save_gguf(tmp_path / "x.gguf")
    finally:
        ours.config = config
    with pytest.raises(ValueError, match="logits_scaling must not be 0"):
        GraniteConfig(logits_scaling=0.0)


@torch.no_grad()
def test_embedded_tokens_are_multiplied_wherever_they_come_from(ours):
    theirs, ids = reference(CASES["granite"]), torch.arange(12).view(1, 12)
    embedded = ours.get_input_embeddings()(ids)
    assert_close(
        ours(inputs_embeds=embedded).logits, theirs(inputs_embeds=embedded).logits, atol=1e-4, rtol=0
    )
    assert_close(ours(inputs_embeds=embedded).logits, ours(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there")
@pytest.mark.parametrize("experts", [0, 5])
@torch.no_grad()
def test_a_hybrid_of_attention_alone_is_a_granite(experts, tmp_path):
    """To llama.cpp's converter, which states so in the file; and to us, who write the same tensors."""
    options = {
        **GRANITE,
        "layer_types": [ATTENTION] * 3,
        "position_embedding_type": "rope",
        "num_local_experts": experts,
        "num_experts_per_tok": 2 if experts else 0,
    }
    original = reference(Case("GraniteMoeHybrid", options))
    (file,) = convert({"granite": original}, tmp_path, {}).values()
    model = AutoModelForCausalLM.from_pretrained(file)
    assert type(model).__name__ == ("GraniteMoeSharedForCausalLM" if experts else "GraniteForCausalLM")
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    assert_close(model(ids).logits, original(ids).logits, atol=1e-4, rtol=0)
    ours = AutoModelForCausalLM.from_pretrained(file.with_suffix(""))
    assert type(ours).__name__ == "GraniteMoeHybridForCausalLM"
    assert_close(ours(ids).logits, original(ids).logits, atol=1e-4, rtol=0)
    ours.save_gguf(tmp_path / "ours.gguf")
    with open_gguf(tmp_path / "ours.gguf") as written, open_gguf(file) as expected:
        assert written.metadata["general.architecture"] == expected.metadata["general.architecture"]
        assert written.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(written[name], expected[name]) for name in expected.tensors)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours.gguf")
    assert_close(again(ids).logits, original(ids).logits, atol=1e-4, rtol=0)
