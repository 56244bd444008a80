"""The caches against concatenation; steps of a model compiled with a static one are compiled once."""

import itertools
from types import SimpleNamespace

import pytest
import torch
import transformers
from hypothesis import given, settings, strategies as st
from torch._dynamo.testing import CompileCounter

from tests.models.tiny import CASES, counterpart, reference
from torchgguf.nn import attention_masks
from torchgguf.nn.cache import Cache, DynamicCache, StaticCache

ROOM = 4096


def random(new: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, new, 8)


STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 300)),
    st.tuples(st.just("crop"), st.integers(-20, 400)),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 1), min_size=2, max_size=2)),
)


def static(room: int = ROOM) -> StaticCache:
    return StaticCache(SimpleNamespace(num_hidden_layers=2), max_cache_len=room)


@pytest.mark.parametrize(
    ("make", "mode"),
    [(DynamicCache, torch.no_grad), (DynamicCache, torch.enable_grad), (static, torch.no_grad)],
)
@given(st.lists(STEPS, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_like_concatenation(make, mode, steps):
    with mode():
        check_like_concatenation(make(), steps)


def check_like_concatenation(cache: Cache, steps):
    expected = [torch.empty(2, 3, 0, 8)] * 4
    for kind, argument in steps:
        if kind == "append":
            new = [random(argument) for _ in range(4)]
            expected = [torch.cat(pair, dim=2) for pair in zip(expected, new, strict=True)]
            for layer in (0, 1):
                both = cache.update(new[2 * layer], new[2 * layer + 1], layer)
                for actual, reference in zip(both, expected[2 * layer :], strict=False):
                    length = reference.shape[2]
                    assert torch.equal(actual[:, :, :length], reference)
                    assert actual.shape[2] in (
                        (length,) if isinstance(cache, DynamicCache) else (length, ROOM)
                    )
        elif kind == "crop":
            cache.crop(argument)
            length = expected[0].shape[2]
            expected = [x[:, :, : argument if argument >= 0 else max(0, length + argument)] for x in expected]
        else:
            cache.reorder_cache(torch.tensor(argument))
            expected = [x[argument] for x in expected]
        assert cache.get_seq_length() == expected[0].shape[2]


@torch.no_grad()
def test_decoding_does_not_copy_everything_each_step():
    cache, places = DynamicCache(), set()
    cache.update(random(10), random(10), 0)
    for _ in range(2000):
        keys, _ = cache.update(random(1), random(1), 0)
        places.add(keys.data_ptr())
    assert len(places) <= 5
    assert cache.get_seq_length() == 2010


def test_a_prompt_is_not_copied():
    cache, keys = DynamicCache(), random(10)
    assert cache.update(keys, random(10), 0)[0].data_ptr() == keys.data_ptr()


def test_empty():
    cache = DynamicCache()
    assert (len(cache), cache.get_seq_length(), cache.get_seq_length(3)) == (0, 0, 0)


def test_gradients_flow_through_it():
    first, second = random(3).requires_grad_(), random(2).requires_grad_()
    cache = DynamicCache()
    cache.update(first, first, 0)
    cache.update(second, second, 0)
    keys, values = cache.update(random(1), random(1), 0)
    (keys.sum() + 2 * values.sum()).backward()
    assert torch.equal(first.grad, torch.full_like(first, 3.0))
    assert torch.equal(second.grad, torch.full_like(second, 3.0))


@pytest.mark.parametrize("trained", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("no_grad", list(itertools.product([False, True], repeat=4)))
def test_gradients_whatever_is_trained(trained, no_grad):
    """Of queries, keys and values any may be frozen; any step may leave no graph; a crop lies between."""
    first = [random(3).double().requires_grad_(flag) for flag in trained]
    cache, seen = DynamicCache(), [torch.empty(2, 3, 0, 8, dtype=torch.double)] * 2

    def through_cache(step, *new):
        if step == 2:
            cache.crop(4)
        return cache.update(*new, 0)

    def by_concatenation(step, *new):
        kept = [x[:, :, :4] for x in seen] if step == 2 else seen
        seen[:] = [torch.cat(pair, dim=2) for pair in zip(kept, new, strict=True)]
        return seen

    def loss(update):
        losses = []
        for step, frozen in enumerate(no_grad):
            with torch.set_grad_enabled(not frozen):
                query, key, value = (x * (step + 1) for x in first)
                keys, values = update(step, key, value)
                losses.append(((query @ keys.mT) @ values).square().sum())
        return sum(losses)

    actual, reference = loss(through_cache), loss(by_concatenation)
    assert torch.allclose(actual, reference)
    if reference.requires_grad:
        inputs = [x for x in first if x.requires_grad]
        for ours, theirs in zip(
            torch.autograd.grad(actual, inputs), torch.autograd.grad(reference, inputs), strict=True
        ):
            assert torch.allclose(ours, theirs)


@torch.no_grad()
def test_appending_leaves_what_was_given_alone():
    """After a crop new positions overwrite old ones in the cache, never in the tensors it was given."""
    cache, keys, values = DynamicCache(), random(4), random(4)
    copies = keys.clone(), values.clone()
    cache.update(keys, values, 0)
    cache.crop(2)
    cache.update(random(1), random(1), 0)
    assert torch.equal(keys, copies[0]) and torch.equal(values, copies[1])


@torch.no_grad()
def test_a_static_cache_stays_where_it_is():
    cache, places = static(64), set()
    for new in (5, 1, 1):
        for layer in (0, 1):
            keys, values = cache.update(random(new), random(new), layer)
            places |= {keys.data_ptr(), values.data_ptr()} if new == 1 else set()
        cache.reorder_cache(torch.tensor([1, 0]))
    assert len(places) == 4
    assert cache.get_seq_length() == 7


@torch.no_grad()
def test_a_static_cache_takes_on_more_rows():
    cache, new = static(8), [random(3) for _ in range(4)]
    for layer in (0, 1):
        cache.update(*new[2 * layer : 2 * layer + 2], layer)
    rows = torch.tensor([0, 0, 1])
    cache.reorder_cache(rows)
    keys, values = cache.update(random(1, batch=3), random(1, batch=3), 0)
    assert torch.equal(keys[:, :, :3], new[0][rows]) and torch.equal(values[:, :, :3], new[1][rows])


@torch.no_grad()
def test_a_full_static_cache_says_so():
    cache = static(4)
    for layer in (0, 1):
        cache.update(random(3), random(3), layer)
    with pytest.raises(ValueError, match="max_cache_len=4 has no room for 5 positions"):
        cache.update(random(2), random(2), 0)
    with pytest.raises(ValueError, match="max_cache_len must be at least 1, got 0"):
        static(0)
    with pytest.raises(ValueError, match="of 2 rows must be used with as many, got 3"):
        cache.update(random(1, batch=3), random(1, batch=3), 0)


@torch.no_grad()
def test_a_mask_that_leaves_out_what_a_static_cache_holds_is_refused():
    cache, embeds = static(9), torch.zeros(2, 1, 4)
    for layer in (0, 1):
        cache.update(random(3), random(3), layer)
    for length in (1, 3, 10):
        with pytest.raises(ValueError, match=rf"shape \(2, {length}\), expected \(2, 4 to 9\)"):
            attention_masks([None], torch.ones(2, length), embeds, cache)


def test_a_static_cache_holds_no_graph():
    with pytest.raises(RuntimeError, match=r"torch\.no_grad\(\), or a DynamicCache"):
        static().update(random(3).requires_grad_(), random(3), 0)


@pytest.mark.parametrize(
    ("name", "padded"),
    [*itertools.product(["llama", "qwen2-sliding"], [False, True]), ("qwen2moe", True)],
)
@torch.no_grad()
def test_a_compiled_step_serves_every_token(name, padded):
    """Logits are those of the whole text read at once; the step is one graph, compiled once."""
    model = counterpart(reference(CASES[name]))
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 32, dtype=torch.long)
    mask[0, : 3 if padded else 0] = 0
    options = {"attention_mask": mask} if padded else {}
    expected = model(ids, attention_mask=mask[:, :24]).logits

    torch._dynamo.reset()
    compiled = CompileCounter()
    step = torch.compile(model, fullgraph=True, backend=compiled)
    cache = StaticCache(model.config, max_cache_len=32)
    logits = [model(ids[:, :8], cache=cache, **options).logits]
    logits += [step(ids[:, [i]], cache=cache, **options).logits for i in range(8, 24)]
    torch.testing.assert_close(
        torch.cat(logits, 1)[mask[:, :24] == 1], expected[mask[:, :24] == 1], atol=1e-4, rtol=0
    )
    assert compiled.frame_count == 1


@torch.no_grad()
def test_a_static_cache_is_unchanged_by_what_it_has_no_room_for():
    model = counterpart(reference(CASES["llama"]))
    ids = torch.arange(10)[None]
    cache = StaticCache(model.config, max_cache_len=8)
    with pytest.raises(ValueError, match="no room for 10 positions"):
        model(ids, cache=cache)
    assert cache.get_seq_length() == 0
    assert torch.equal(model(ids[:, :5], cache=cache).logits, model(ids[:, :5]).logits)
    with pytest.raises(ValueError, match="no room for 10 positions"):
        model(ids[:, 5:], cache=cache)
    torch.testing.assert_close(model(ids[:, 5:8], cache=cache).logits, model(ids[:, :8]).logits[:, 5:])


@pytest.mark.parametrize("make", [DynamicCache, lambda: static(9)])
@torch.no_grad()
def test_rows_and_what_transformers_calls_it(make):
    """A prompt read once is repeated for several continuations, as transformers' caches do it."""
    ours, theirs = make(), transformers.DynamicCache()
    assert (ours.batch_size, ours.is_initialized) == (0, False)
    key = random(4)
    for cache in (ours, theirs):
        cache.update(key, 2 * key, 0)
        cache.batch_repeat_interleave(3)
        cache.batch_select_indices(torch.tensor([0, 3, 5]))
    more = random(1, batch=3)
    expected = theirs.update(more, 2 * more, 0)
    for actual, wanted in zip(ours.update(more, 2 * more, 0), expected, strict=True):
        assert torch.equal(actual[:, :, :5], wanted)
    assert (ours.batch_size, ours.is_initialized) == (3, True)
    assert ours.get_max_length() == (9 if ours.is_compileable else theirs.get_max_length())
    ours.reset()
    assert ours.get_seq_length() == 0 and not ours.is_initialized
