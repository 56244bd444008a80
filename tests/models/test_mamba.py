"""Files of Mamba and Jamba as other writers state them, and what is refused."""

import pytest
import torch

from tests.models.case import MAMBA
from tests.models.files import edited
from tests.models.hybrids import HYBRIDS
from tests.models.tiny import Case, counterpart, reference
from torchgguf.container import GGUFError
from torchgguf.models import AutoConfig, AutoModelForCausalLM, JambaConfig, MambaConfig

SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2}
IDS = torch.randint(0, 400, (1, 12), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_what_llama_cpp_itself_writes(tmp_path):
    """It states heads by layers and which layers are recurrent, and no experts where there are none."""
    dense = {**HYBRIDS["jamba"].config, "num_experts": 1, "num_experts_per_tok": 1}
    stated = {
        "jamba.attention.head_count": [0, 4, 0, 0],
        "jamba.attention.key_length": 16,
        "jamba.attention.value_length": 16,
        "jamba.attention.recurrent_layers": [1, 0, 1, 1],
        "jamba.expert_count": 0,
        "jamba.expert_used_count": 0,
        "jamba.expert_feed_forward_length": 0,
    }
    of_mamba = {"mamba.attention.head_count": 2, "mamba.attention.head_count_kv": 2}
    of_mamba |= {"mamba.feed_forward_length": 96, "mamba.attention.recurrent_layers": [1, 1, 1]}
    for case, metadata in ((Case("Jamba", dense), stated), (HYBRIDS["mamba"], of_mamba)):
        model = counterpart(reference(case))
        model.save_gguf(tmp_path / "usual.gguf")
        path = edited(tmp_path / "usual.gguf", tmp_path / "stated.gguf", metadata)
        again = AutoModelForCausalLM.from_pretrained(path)
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits, atol=1e-5, rtol=0)
        again.save_gguf(tmp_path / "again.gguf")
        assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


def test_layers_follow_from_the_numbers_of_heads(tmp_path):
    """Any period and offset that describe the same layers are right; other orders are refused."""
    config = {**HYBRIDS["jamba"].config, "num_hidden_layers": 7, "num_experts": 2, "num_experts_per_tok": 1}
    for period, offset in ((1, 0), (2, 1), (3, 0), (4, 2), (7, 6), (9, 8)):
        fields = {"attn_layer_period": period, "attn_layer_offset": offset}
        fields |= {"expert_layer_period": period, "expert_layer_offset": offset}
        model, path = (
            AutoModelForCausalLM.from_config(JambaConfig(**{**SMALL, **config, **fields})),
            tmp_path / "x.gguf",
        )
        model.save_gguf(path)
        read = AutoConfig.from_pretrained(path)
        for kinds in ("has_attention", "has_experts"):
            assert [*map(getattr(read, kinds), range(7))] == [*map(getattr(model.config, kinds), range(7))]
    model.save_gguf(path, metadata={"jamba.attention.head_count_kv": [2, 2, 0, 0, 0, 0, 0]})
    with pytest.raises(GGUFError, match=r"must be every n-th, got \[0, 1\] as attn_layer"):
        AutoConfig.from_pretrained(path)


def test_what_is_refused(tmp_path):
    for field, value in {"use_bias": True, "use_conv_bias": False, "hidden_act": "gelu"}.items():
        model = AutoModelForCausalLM.from_config(MambaConfig(**MAMBA, **{field: value}))
        with pytest.raises(ValueError, match=f"GGUF does not support {field}={value!r}"):
            model.save_gguf(tmp_path / "x.gguf")
    with pytest.raises(ValueError, match="time_step_rank must be 'auto' or int, got 'much'"):
        MambaConfig(time_step_rank="much")
    with pytest.raises(ValueError, match="the sizes of a Mamba mixer must be above 0"):
        AutoModelForCausalLM.from_config(MambaConfig(**{**MAMBA, "state_size": 0}))
    with pytest.raises(ValueError, match="must be from 0 to attn_layer_period=2 - 1, got 2"):
        JambaConfig(attn_layer_period=2, attn_layer_offset=2)
    counterpart(reference(HYBRIDS["mamba"])).save_gguf(
        tmp_path / "x.gguf", metadata={"mamba.ssm.inner_size": 100}
    )
    with pytest.raises(GGUFError, match=r"ssm\.inner_size must be a multiple of the width 64, got 100"):
        AutoConfig.from_pretrained(tmp_path / "x.gguf")


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_a_mask_on_another_device(name):
    """As of attention, it moves to the states."""
    model = counterpart(reference(HYBRIDS[name])).to("meta")
    mask = torch.ones_like(IDS)
    mask[0, 0] = 0
    assert model(IDS.to("meta"), attention_mask=mask).logits.shape == (*IDS.shape, 400)
