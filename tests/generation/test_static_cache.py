"""A static cache leads to the tokens of a dynamic one, which other tests compare with transformers'."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.generation.conftest import TWINS, Twins, prompts
from tests.models.tiny import CASES, counterpart, reference
from tests.pairs import every_pair
from torchgguf.nn import DynamicCache, StaticCache

WAYS = [
    {},
    {"do_sample": True, "top_k": 20},
    {"do_sample": True, "num_return_sequences": 3},
    {"num_beams": 3, "num_return_sequences": 2},
    {"prefill_chunk_size": 4},
    {"repetition_penalty": 1.5, "eos_token_id": list(range(3, 90))},
]


@pytest.mark.parametrize(
    ("way", "twins", "side"), every_pair(WAYS, TWINS, ["left", "right", None]), ids=str, indirect=["twins"]
)
def test_tokens_are_those_of_a_dynamic_cache(twins: Twins, side, way):
    batch = prompts(side) if side else {"input_ids": prompts(lengths=(7, 7))["input_ids"]}

    def tokens(**cache):
        generator = torch.Generator().manual_seed(5)
        return twins.ours.generate(**batch, **way, **cache, max_new_tokens=16, generator=generator)

    expected = tokens(cache_implementation="dynamic")
    assert torch.equal(tokens(cache_implementation="static"), expected)
    if side != "right":
        assert torch.equal(tokens(cache=StaticCache(twins.ours.config, max_cache_len=99)), expected)


def test_greedy_tokens_are_those_of_transformers(twins: Twins):
    settings = {**prompts(), "max_new_tokens": 16}
    out = twins.ours.generate(**settings, cache_implementation="static")
    assert torch.equal(out, twins.theirs.generate(**settings))


def test_a_text_goes_on_from_a_static_cache(twins: Twins):
    ids = prompts(lengths=(7,))["input_ids"]
    whole = twins.ours.generate(ids, max_new_tokens=12)
    cache = StaticCache(twins.ours.config, max_cache_len=7 + 12 - 1)
    first = twins.ours.generate(ids, max_new_tokens=5, cache=cache)
    assert cache.get_seq_length() == 7 + 4
    assert torch.equal(twins.ours.generate(first, max_new_tokens=7, cache=cache), whole)
    cache.crop(3)
    assert torch.equal(twins.ours.generate(whole[:, :9], max_new_tokens=10, cache=cache), whole)


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("llama", {}),
        ("llama", {"num_beams": 2}),
        ("mistral-sliding", {"num_beams": 2}),
        ("gpt2", {}),
        ("bloom", {}),
        ("lfm2", {"num_beams": 2}),
    ],
    ids=str,
)
def test_a_compiled_model_is_compiled_once_for_all_tokens(kind, way):
    """Once for prompts and once for steps; another text of the same cache's size costs nothing."""
    model = counterpart(reference(CASES[kind]))
    settings = {**way, "eos_token_id": None, "pad_token_id": 1, "cache_implementation": "static"}
    expected = [model.generate(**prompts(seed=seed), **settings, max_new_tokens=9) for seed in (0, 1)]
    torch._dynamo.reset()
    compiled = CompileCounter()
    model.forward = torch.compile(model.forward, fullgraph=True, backend=compiled)
    out = model.generate(**prompts(seed=0), **settings, max_new_tokens=9)
    assert torch.equal(out, expected[0])
    assert compiled.frame_count == 2
    out = model.generate(**prompts(seed=1), **settings, max_new_tokens=9)
    assert torch.equal(out, expected[1])
    model.generate(**prompts(seed=1), **settings, max_new_tokens=3, max_cache_len=9 + 9 - 1)
    assert compiled.frame_count == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_implementation": "quantized"}, "cache_implementation must be one of dynamic, static"),
        ({"cache_implementation": "static", "use_cache": False}, "cache_implementation needs use_cache"),
        (
            {"cache_implementation": "static", "cache": DynamicCache()},
            "cache and cache_implementation exclude each other: leave one of them out",
        ),
    ],
)
def test_contradictions_are_refused(twins: Twins, settings, message):
    with pytest.raises(ValueError, match=message):
        twins.ours.generate(**prompts(), **settings)


def test_a_cache_too_small_is_refused_at_once(twins: Twins):
    cache = StaticCache(twins.ours.config, max_cache_len=17)
    with pytest.raises(ValueError, match="max_cache_len=17, the text needs 18"):
        twins.ours.generate(**prompts(), cache=cache, max_new_tokens=10)
    assert cache.get_seq_length() == 0


def test_room_without_a_static_cache_is_pointed_out(twins: Twins):
    with pytest.warns(UserWarning, match='max_cache_len has no effect without cache_implementation="static"'):
        twins.ours.generate(**prompts(), max_cache_len=50, max_new_tokens=1)
