"""Every model and `generate` accept the cache by both of its names."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

from tests.models.classes import CLASSES
from tests.models.tiny import CASES, OWN_SIZES, SIZES, counterpart, reference
from tests.models.without_peer import BIDIRECTIONAL, CASES as CONFIGS
from torchgguf.models import AutoConfig, GPT2DoubleHeadsModel
from torchgguf.nn import DynamicCache

NAMES = ["cache", "past_key_values"]
TWO_NAMES = "cache and past_key_values are two names of one argument: use cache only"
# Encoders have no cache, nor have decoders that see texts in both directions.
DECODERS = [
    each
    for each in CLASSES
    if "causal_lm" in each.architecture.classes
    and each.architecture.config_class.model_type not in {CONFIGS[name][0] for name in BIDIRECTIONAL}
]
IDS = torch.arange(20, 32).view(2, 6)


@pytest.fixture(scope="module")
def llama():
    return counterpart(reference(CASES["llama"]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model_class", [*DECODERS, GPT2DoubleHeadsModel], ids=lambda each: each.__name__)
@torch.no_grad()
def test_every_class(model_class):
    model_type = model_class.architecture.config_class.model_type
    sizes = {"gpt2": OWN_SIZES["GPT2"], "bloom": OWN_SIZES["Bloom"]}.get(model_type, SIZES)
    if model_type.startswith(("deepseek", "kimi")):  # all heads share what is compressed
        sizes = {**sizes, "num_key_value_heads": sizes["num_attention_heads"], "num_experts_per_tok": 2}
    if model_type == "mamba2":  # whose heads are those of its channels
        sizes = {**sizes, "num_heads": 8, "head_dim": sizes["hidden_size"] // 4}
    if model_type == "gemma3n_text":
        sizes = {**sizes, "num_kv_shared_layers": 1}
    if model_type == "dots1":  # whose config has no default numbers of experts
        sizes = {**sizes, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    model = model_class(AutoConfig.for_model(model_type, **{**sizes, "pad_token_id": 1})).eval()
    expected = model(IDS)[0]
    for call in (model, model.forward):
        for name in NAMES:
            cache = DynamicCache()
            call(IDS[:, :4], **{name: cache})
            actual = call(IDS[:, 4:], **{name: cache})[0]
            assert cache.get_seq_length() == 6
            of_texts = actual.shape == expected.shape
            assert_close(actual, expected if of_texts else expected[:, 4:], atol=1e-4, rtol=0)
        with pytest.raises(TypeError, match=TWO_NAMES):
            call(IDS, cache=cache, past_key_values=cache)
        with pytest.raises(TypeError):
            call(IDS, cash=cache)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@torch.no_grad()
def test_copies(llama, copied):
    twin, cache = copied(llama), DynamicCache()
    twin(IDS, past_key_values=cache)
    assert cache.get_seq_length() == 6


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_compiled(llama, name):
    torch._dynamo.reset()
    compiled, cache = torch.compile(llama, backend="eager", fullgraph=True), DynamicCache()
    first = compiled(IDS[:, :4], **{name: cache})
    assert first.cache is first.past_key_values is cache
    assert_close(compiled(IDS[:, 4:], **{name: cache}).logits, llama(IDS).logits[:, 4:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing(llama, name):
    model = copy.deepcopy(llama).train()
    model.gradient_checkpointing_enable()
    with pytest.warns(UserWarning, match="no cache is made"):
        model(IDS, **{name: DynamicCache()}).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_generating(llama, name):
    settings = {"max_new_tokens": 5, "return_dict_in_generate": True, "eos_token_id": None}
    expected = llama.generate(IDS, **settings)
    cache = DynamicCache()
    llama(IDS[:, :4], cache=cache)
    actual = llama.generate(IDS, **settings, **{name: cache})
    assert torch.equal(actual.sequences, expected.sequences)
    assert actual.cache is actual.past_key_values is cache
    cache.crop(3)
    streamed = torch.stack([*llama.generate_stream(IDS, **settings, **{name: cache})], dim=1)
    assert torch.equal(streamed, expected.sequences[:, 6:])
    for generate in (llama.generate, llama.generate_stream):
        with pytest.raises(TypeError, match=TWO_NAMES):
            generate(IDS, cache=cache, past_key_values=cache)
