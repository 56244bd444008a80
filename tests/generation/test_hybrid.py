"""Hybrid models generate as they do without a cache: reading the whole text anew for every token."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from tests.nn.hybrid import ORIGINAL, VOCABULARY, Hybrid
from torchgguf.nn import Convolution, DynamicCache, KeyValues, Recurrent, StaticCache

LAYERS = ["mam", "amm", "mmm"]


@pytest.fixture(scope="module", params=LAYERS)
def model(request):
    return Hybrid(request.param)


def tokens(length: int, rows: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (rows, length), generator=generator)


def padded(length: int, blanks: tuple[int, ...]) -> dict[str, torch.Tensor]:
    ids = tokens(length, len(blanks))
    mask = (torch.arange(length) >= torch.tensor(blanks)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "chunks": {"prefill_chunk_size": 3},
}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("batch", [padded(6, (0, 0)), padded(9, (4, 1, 2))], ids=["whole", "padded"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_tokens_are_those_without_a_cache(model, way, batch, cache):
    """The texts grow beyond the length where keys change, and recurrent states cannot go back."""

    def continued(**options):
        generator = torch.Generator().manual_seed(1)
        return model.generate(**batch, **options, max_new_tokens=2 * ORIGINAL, generator=generator)

    expected = continued(
        **{name: value for name, value in way.items() if "chunk" not in name}, use_cache=False
    )
    assert torch.equal(continued(**way, cache_implementation=cache), expected)


def test_a_cache_with_the_first_tokens_is_used(model):
    expected = model.generate(tokens(7, 1), max_new_tokens=20, use_cache=False)
    for cache in (DynamicCache(), StaticCache(None, 40)):
        model(expected[:, :5], cache=cache)
        assert torch.equal(model.generate(expected[:, :7], max_new_tokens=4, cache=cache), expected[:, :11])
        assert cache.get_seq_length() == 10
        assert torch.equal(model.generate(expected[:, :11], max_new_tokens=16, cache=cache), expected)
        assert cache.get_seq_length() == 26


@pytest.mark.parametrize("make", [DynamicCache, lambda: StaticCache(None, 40)], ids=["dynamic", "static"])
def test_what_cannot_go_back_says_so(make):
    model, cache, ids = Hybrid(), make(), tokens(8)
    expected = model(ids, use_cache=False).logits
    model(ids, cache=cache)
    assert [cache.can_crop(n) for n in (0, 1, 7, 8, 9, -1, -8)] == [
        True,
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    for length in (5, -3):
        with pytest.raises(
            ValueError, match="the Convolution state of layer 0 must be cropped to 0 or to 8, got 5"
        ):
            cache.crop(length)
    assert cache.get_seq_length() == 8
    assert len(cache) == 3 and [type(state) for _, state in cache.states()].count(Recurrent) == 2
    cache.crop(8)
    assert cache.get_seq_length() == 8
    cache.crop(0)
    assert cache.get_seq_length() == 0
    assert_close(model(ids, cache=cache).logits, expected)


def test_one_layer_has_several_states():
    model, cache = Hybrid(), DynamicCache()
    model(tokens(5), cache=cache)
    assert cache.state(0, Convolution) is not cache.state(0, Recurrent)
    assert cache.state(0, Convolution).value.shape == (2, 32, 3)
    assert cache.state(0, Recurrent).value.shape == (2, 8, 8)
    assert cache.state(1, KeyValues).keys.shape == (2, 4, 5, 8)
    lengths = [cache.get_seq_length(layer) for layer in (None, 0, 1, 2, 3)]
    assert lengths == [5, 5, 5, 5, 0]


def test_keys_of_short_and_long_texts(model):
    """What a cache holds for is what its frequencies are for; nothing is asked of the model."""
    has_keys = any(type(layer).__name__ == "Attention" for layer in model.layers)
    for make in (DynamicCache, lambda: StaticCache(None, 40)):
        short, long = make(), make()
        model(tokens(ORIGINAL), cache=short)
        model(tokens(ORIGINAL + 1), cache=long)
        lengths = (1, ORIGINAL, ORIGINAL + 1, 99)
        assert [short.holds_for(n) for n in lengths] == [True, True, not has_keys, not has_keys]
        assert [long.holds_for(n) for n in lengths] == [not has_keys, not has_keys, True, True]
        model(tokens(2), cache=short)  # keys of both kinds
        assert any(map(short.holds_for, lengths)) is not has_keys
        for cache in (short, long):
            cache.crop(0)
            assert all(map(cache.holds_for, lengths))


def test_conversations_reuse_what_they_can(model):
    """As in the command line: keep the common prefix if the cache goes back to it and holds for the text."""
    cache, read, reused = DynamicCache(), [], []
    texts = [[3, 4, 5, 6], [3, 4, 5, 6, 7, 8], [3, 9, 9], [3, 9, 9, 1, *range(1, 12)], [3, 9, 9, 1]]
    for text in texts:
        known = next(
            (i for i, (a, b) in enumerate(zip(read, text, strict=False)) if a != b), min(len(read), len(text))
        )
        known = min(known, len(text) - 1)
        if not (cache.can_crop(known) and cache.holds_for(len(text))):
            known = 0
        cache.crop(known)
        reused.append(known)
        ids = torch.tensor([text])
        out = model.generate(ids, cache=cache, max_new_tokens=3)
        assert torch.equal(out, model.generate(ids, use_cache=False, max_new_tokens=3))
        read = out[0, :-1].tolist()
    assert reused[0] == 0 and reused[2] == 0


@torch.no_grad()
def test_a_compiled_step_serves_every_token(model):
    ids, mask = tokens(24), torch.ones(2, 30, dtype=torch.long)
    mask[0, :3] = 0
    short = ids[:, :ORIGINAL]  # one set of frequencies: a plain loop does not read anew
    positions = (mask[:, :ORIGINAL].cumsum(1) - 1).clamp(min=0)
    expected = model(short, attention_mask=mask[:, :ORIGINAL], position_ids=positions, use_cache=False).logits
    torch._dynamo.reset()
    compiled = CompileCounter()
    step = torch.compile(model, fullgraph=True, backend=compiled)
    cache, logits = StaticCache(None, 30), []
    for piece in (slice(0, 6), *(slice(i, i + 1) for i in range(6, ORIGINAL))):
        run = model if piece.start == 0 else step
        logits.append(run(short[:, piece], mask, positions[:, piece], cache).logits)
    real = mask[:, :ORIGINAL] == 1
    assert_close(torch.cat(logits, 1)[real], expected[real], atol=1e-4, rtol=0)
    assert compiled.frame_count == 1
    assert cache.get_seq_length() == ORIGINAL


@torch.no_grad()
def test_a_compiled_model_reads_anew_where_keys_change(model):
    """The range of lengths is then known to a tensor only."""
    batch = padded(6, (2, 0))
    settings = {"max_new_tokens": 2 * ORIGINAL}
    expected = model.generate(**batch, **settings, use_cache=False)
    twin = Hybrid("".join("a" if type(layer).__name__ == "Attention" else "m" for layer in model.layers))
    torch._dynamo.reset()
    twin.forward = torch.compile(twin.forward, fullgraph=True, backend="eager")
    assert torch.equal(twin.generate(**batch, **settings, cache_implementation="static"), expected)


def test_gradients_flow_through_the_states():
    model, ids = Hybrid().requires_grad_(), tokens(8)
    model(ids, use_cache=False).logits.square().sum().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    cache = DynamicCache()
    pieces = [model(piece, cache=cache).logits for piece in ids.split([3, 4, 1], dim=1)]
    torch.cat(pieces, dim=1).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[name], atol=1e-3, rtol=1e-4)
    with pytest.raises(RuntimeError, match="a static cache holds no graph"):
        model(ids, cache=StaticCache(None, 9))


def test_states_of_another_batch_are_refused():
    model = Hybrid()
    for cache in (DynamicCache(), StaticCache(None, 9)):
        model(tokens(3), cache=cache)
        with pytest.raises(
            ValueError, match=r"a state of shape \(2, 32, 3\) must be read so, got \(3, 32, 3\)"
        ):
            model(tokens(1, rows=3), cache=cache)


def test_a_full_cache_of_recurrent_states_says_so():
    model, cache = Hybrid("mm"), StaticCache(None, 4)
    model(tokens(3), cache=cache)
    with pytest.raises(ValueError, match="max_cache_len=4 has no room for 5 positions"):
        model(tokens(2), cache=cache)


@torch.no_grad()
@pytest.mark.parametrize("make", [DynamicCache, lambda: StaticCache(None, 9)], ids=["dynamic", "static"])
def test_one_layer_may_advance_its_states_in_any_order(make):
    """Attention and recurrence side by side: the state asked for first is not the one that advances first."""
    cache, seen = make(), []
    for new in (3, 1, 2):
        state = cache.state(0, Recurrent)
        before = state.read((2, 4), torch.float32, torch.device("cpu"))
        seen.append(torch.randn(2, 3, new, 8))
        keys, _ = cache.state(0, KeyValues).append(seen[-1], seen[-1])
        state.advance(before + new, new)
        total = sum(x.shape[2] for x in seen)
        assert torch.equal(keys[:, :, :total], torch.cat(seen, dim=2))
        assert torch.equal(state.read((2, 4), torch.float32, before.device), torch.full((2, 4), float(total)))
        assert cache.get_seq_length() == total
        assert cache.positions(2, before.device).tolist() == [total, total + 1]
