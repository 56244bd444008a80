"""Caches in files: the text goes on after `load` as it would have before `save`."""

import pytest
import torch
from torch.testing import assert_close

from tests.nn.hybrid import ORIGINAL, VOCABULARY, Hybrid
from torchgguf.container import GGUFError, open_gguf, write_gguf
from torchgguf.nn import Convolution, DynamicCache, StaticCache

MAKERS = {"dynamic": DynamicCache, "static": lambda: StaticCache(None, 40)}


def tokens(length, rows=2):
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("after", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("before", MAKERS.values(), ids=MAKERS)
def test_a_text_goes_on(tmp_path, before, after):
    model, saved, ids = Hybrid(), before(), tokens(12)
    model(ids[:, :7], cache=saved)
    saved.save(tmp_path / "cache.gguf")
    loaded = after().load(tmp_path / "cache.gguf")
    assert loaded.get_seq_length() == 7
    assert loaded.holds_for(ORIGINAL) and not loaded.holds_for(ORIGINAL + 1)
    expected = model(ids, use_cache=False).logits[:, 7:]
    assert_close(model(ids[:, 7:9], cache=loaded).logits, expected[:, :2])
    assert_close(model(ids[:, 9:], cache=loaded).logits, expected[:, 2:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_are_kept(tmp_path, dtype):
    model, cache = Hybrid().to(dtype), DynamicCache()
    model(tokens(5), cache=cache)
    cache.save(tmp_path / "cache.gguf")
    loaded = DynamicCache().load(tmp_path / "cache.gguf")
    pairs = list(zip(cache.states(), loaded.states(), strict=True))
    assert len(pairs) == 5
    for (_, state), (_, other) in pairs:
        for name, tensor in state.tensors().items():
            assert_close(other.tensors()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("after", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("before", MAKERS.values(), ids=MAKERS)
def test_keys_whose_values_are_a_part_of_them(tmp_path, before, after):
    """As in latent attention: the values of the cache are empty, which no tensor of a file is."""
    saved, keys = before(), torch.randn(2, 1, 9, 8)
    saved.update(keys[:, :, :5], keys[:, :, :5, :0], 1)
    saved.save(tmp_path / "cache.gguf")
    loaded = after().load(tmp_path / "cache.gguf")
    assert loaded.get_seq_length() == 5
    found, values = loaded.update(keys[:, :, 5:], keys[:, :, 5:, :0], 1)
    assert_close(found[:, :, :9], keys)
    assert values.shape[-1] == 0


def test_what_is_refused(tmp_path):
    model, cache, path = Hybrid(), DynamicCache(), tmp_path / "cache.gguf"
    with pytest.raises(ValueError, match="an empty cache must not be saved"):
        cache.save(path)
    model(tokens(7), cache=cache)
    cache.save(path)
    with pytest.raises(ValueError, match="this one was used already"):
        cache.load(path)
    with pytest.raises(ValueError, match="max_cache_len=4 has no room for the 7 positions"):
        StaticCache(None, 4).load(path)
    with pytest.raises(FileNotFoundError):
        DynamicCache().load(tmp_path / "absent.gguf")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_states_without_numbers(tmp_path, make):
    """Values of latent attention, which its keys contain, and what a kernel of size 1 remembers."""
    saved, x = DynamicCache(), torch.ones(2, 3, 5, dtype=torch.bfloat16)
    saved.update(x[:, None], x[:, None, :, :0], 0)
    saved.state(1, Convolution).append(x, 0)
    saved.save(tmp_path / "cache.gguf")
    loaded = make().load(tmp_path / "cache.gguf")
    assert loaded.get_seq_length() == 3
    keys, values = loaded.update(x[:, None], x[:, None, :, :0], 0)
    assert torch.equal(keys[:, :, :6], torch.cat((x, x), dim=1)[:, None])
    assert values.shape == (*keys.shape[:3], 0) and values.dtype is x.dtype
    assert torch.equal(loaded.state(1, Convolution).append(x, 0), x)


def test_a_file_after_a_broken_one(tmp_path):
    model, saved, ids = Hybrid(), DynamicCache(), tokens(12)
    model(ids[:, :7], cache=saved)
    saved.save(tmp_path / "cache.gguf")
    with open_gguf(tmp_path / "cache.gguf") as file:
        tensors = {name: file[name].clone() for name in file}
        del tensors["layers.1.KeyValues.values"]
        write_gguf(tmp_path / "broken.gguf", file.metadata | {"torchgguf.cache.length": 7}, tensors)
    model(ids[:, 7:9], cache=saved)
    saved.save(tmp_path / "cache.gguf")
    loaded = StaticCache(None, 40)
    with pytest.raises(GGUFError, match="layer 1 is broken: 'values'"):
        loaded.load(tmp_path / "broken.gguf")
    assert loaded.load(tmp_path / "cache.gguf").get_seq_length() == 9
    expected = model(ids, use_cache=False).logits[:, 9:]
    assert_close(model(ids[:, 9:], cache=loaded).logits, expected)


BROKEN = {
    "a model's": ({"general.architecture": "llama"}, {}, "contains no cache"),
    "length": ({"torchgguf.cache.length": -1}, {}, "must be a positive number, got -1"),
    "empty": ({"torchgguf.cache.empty": 5}, {}, "must be a list of names, got 5"),
    "name": ({}, {"layers.0.Secret.value": torch.ones(1)}, "belongs to no state"),
    "layer": ({}, {"layers.99999999999.Recurrent.value": torch.ones(1)}, "belongs to no state"),
    "missing": ({}, {"layers.0.KeyValues.keys": torch.ones(1, 1, 3, 2)}, "layer 0 is broken: 'values'"),
    "shape": (
        {},
        {f"layers.0.KeyValues.{name}": torch.ones(1, 1, 2, 2) for name in ("keys", "values")},
        r"layer 0 is broken: keys and values must be floating point of shape \(rows, heads, 3, size\)",
    ),
    "type": ({}, {"layers.1.Recurrent.value": torch.ones(1, 2, dtype=torch.int32)}, "must be floating point"),
}


@pytest.mark.parametrize(("metadata", "tensors", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files(tmp_path, metadata, tensors, message):
    stated = {"general.architecture": "torchgguf.cache"}
    if "general.architecture" not in metadata:
        stated["torchgguf.cache.length"] = 3
    write_gguf(tmp_path / "cache.gguf", stated | metadata, tensors or {"x": torch.ones(1)})
    with pytest.raises(GGUFError, match=message):
        DynamicCache().load(tmp_path / "cache.gguf")


def test_a_cache_is_no_model(tmp_path):
    cache = DynamicCache()
    Hybrid()(tokens(4), cache=cache)
    cache.save(tmp_path / "cache.gguf")
    with open_gguf(tmp_path / "cache.gguf") as file:
        assert file.metadata["general.architecture"] == "torchgguf.cache"
