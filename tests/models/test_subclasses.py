"""Classes that users derive from models, and what they may override."""

import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import CASES, OWN_SIZES, SIZES, counterpart, reference
from torchgguf import BloomForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, LlamaModel
from torchgguf.models import registry
from torchgguf.models.blocks import heads
from torchgguf.nn import DynamicCache

IDS = torch.arange(20, 32).view(2, 6)


def config_of(model_class):
    model_type = model_class.architecture.config_class.model_type
    sizes = {"gpt2": OWN_SIZES["GPT2"], "bloom": OWN_SIZES["Bloom"]}.get(model_type, SIZES)
    return torchgguf.AutoConfig.for_model(model_type, **sizes)


@pytest.mark.parametrize("model_class", [GPT2LMHeadModel, BloomForCausalLM, LlamaForCausalLM])
@torch.no_grad()
def test_an_overridden_forward_keeps_its_own_order(model_class):
    class Own(model_class):
        def forward(self, ids, mask=None, **inputs):
            return super().forward(input_ids=ids, attention_mask=mask, **inputs)

    model = Own(config_of(model_class)).eval()
    mask = torch.ones_like(IDS)
    mask[0, 0] = 0
    expected = model_class.forward(model, input_ids=IDS, attention_mask=mask).logits
    assert_close(model(IDS, mask).logits, expected)
    cache = model(IDS[:, :3]).cache
    assert_close(
        model(IDS[:, 3:], past_key_values=cache).logits, model(IDS).logits[:, 3:], atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_an_overridden_forward_may_declare_the_older_name_of_the_cache():
    class Own(LlamaForCausalLM):
        def forward(self, input_ids, past_key_values=None, **inputs):
            self.seen = past_key_values
            return super().forward(input_ids, past_key_values=past_key_values, **inputs)

    model, cache = Own(config_of(Own)).eval(), DynamicCache()
    model(IDS, past_key_values=cache)
    assert model.seen is cache
    assert cache.get_seq_length() == IDS.shape[1]


def test_auto_classes_stay_as_they_are():
    """A class that a user defines is not what the Auto classes load."""

    class Own(heads.ForCausalLM, base=LlamaModel):
        pass

    class Finder(heads.ForQuestionAnswering, base=torchgguf.Phi3Model):
        pass

    assert registry.architecture_of_type("llama").classes["causal_lm"] is LlamaForCausalLM
    with pytest.raises(ValueError, match="has no class for model_type 'phi3'"):
        torchgguf.AutoModelForQuestionAnswering.from_config(config_of(Finder))


def test_parameters_of_the_model_itself(tmp_path):
    class Own(LlamaForCausalLM):
        def __init__(self, config, attn_implementation=None):
            super().__init__(config, attn_implementation)
            self.extra = nn.Parameter(torch.ones(3))

    model = Own(config_of(Own))
    with torch.no_grad():
        model.extra.fill_(5)
    model.save_pretrained(tmp_path)
    again = Own.from_pretrained(tmp_path)
    assert_close(again.extra, model.extra)


@pytest.mark.parametrize("name", ["llama", "qwen2moe", "qwen3", "phi-long", "gpt2", "bloom"])
@torch.no_grad()
def test_models_are_pickled(name):
    model = counterpart(reference(CASES[name]))
    again = pickle.loads(pickle.dumps(model))
    assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)
