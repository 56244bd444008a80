"""Outputs of forwards: named as in transformers, read by name, by position, or as tuples."""

import copy
import pickle
from dataclasses import fields

import pytest
import torch
import torch.utils._pytree as pytree
import transformers.modeling_outputs as theirs
from torch.testing import assert_close

import torchgguf.models.blocks.outputs as ours
from tests.peers.transformers import our_name
from torchgguf.nn import DynamicCache, ModelOutput

NAMES = [
    "BaseModelOutputWithPast",
    "BaseModelOutputWithPastAndCrossAttentions",
    "CausalLMOutputWithPast",
    "CausalLMOutputWithCrossAttentions",
    "SequenceClassifierOutputWithPast",
    "TokenClassifierOutput",
    "QuestionAnsweringModelOutput",
]


def filled(module, name: str, without: tuple[str, ...] = ()):
    """An output whose values are tensors or tuples of them; a tensor stands for the cache too."""
    kind = getattr(module, name)
    values = {f.name: torch.full((2, i + 1), float(i)) for i, f in enumerate(fields(kind))}
    values |= {n: (values[n], values[n] + 1) for n in values if n in ("hidden_states", "attentions")}
    return kind(**{n: v for n, v in values.items() if our_name(n) not in without})


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_those_of_transformers(name):
    expected = [our_name(f.name) for f in fields(getattr(theirs, name))]
    assert [f.name for f in fields(getattr(ours, name))] == expected


@pytest.mark.parametrize("without", [(), ("cache", "hidden_states"), ("loss",)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_reading(name, without):
    mine, reference = filled(ours, name, without), filled(theirs, name, without)
    expected = {our_name(key): value for key, value in reference.items()}
    assert list(mine.keys()) == list(expected)
    assert len(mine) == len(reference)
    assert_close(mine.to_tuple(), reference.to_tuple())
    assert_close((*mine,), reference.to_tuple())
    assert_close(tuple(mine.values()), tuple(reference.values()))
    assert_close(dict(mine.items()), expected)
    assert_close(dict(**mine), expected)
    for place in (0, -1, slice(1), slice(1, 3), slice(None)):
        assert_close(mine[place], reference[place])
    for key in without:
        assert getattr(mine, key, None) is None
        assert key not in mine
        assert mine.get(key, "none") == "none"
        with pytest.raises(KeyError, match=key):
            mine[key]
    for key in expected:
        assert key in mine
        assert mine[key] is mine.get(key) is getattr(mine, key)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles(name, copied):
    original = filled(ours, name, without=("attentions",))
    twin = copied(original)
    assert type(twin) is type(original)
    assert_close(dict(twin.items()), dict(original.items()))


@pytest.mark.parametrize("name", NAMES)
def test_torch_finds_the_tensors_inside(name):
    """FSDP hangs its hooks on them, and `torch.compile` takes outputs apart and makes them anew."""
    original = filled(ours, name, without=("hidden_states",))
    doubled = pytree.tree_map(lambda x: 2 * x, original)
    assert type(doubled) is type(original)
    expected = pytree.tree_map(lambda x: 2 * x, filled(theirs, name, without=("hidden_states",)))
    assert_close(doubled.to_tuple(), expected.to_tuple())
    compiled = torch.compile(lambda x: type(original)(**dict(x.items())), backend="eager", fullgraph=True)
    assert_close(compiled(original).to_tuple(), original.to_tuple())


def all_outputs(base: type = ModelOutput) -> list[type]:
    return [kind for each in base.__subclasses__() for kind in (each, *all_outputs(each))]


WITH_CACHE = [kind for kind in all_outputs() if "cache" in {f.name for f in fields(kind)}]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", WITH_CACHE, ids=lambda kind: kind.__name__)
def test_both_names_of_the_cache(kind):
    required = {f.name: torch.zeros(1) for f in fields(kind) if f.default is not None}
    cache, other = DynamicCache(), DynamicCache()
    for name in ("cache", "past_key_values"):
        output = kind(**required, **{name: cache})
        assert output.keys() == (*required, "cache")
        assert "cache" in output and "past_key_values" in output
        assert output.cache is output.past_key_values is output["cache"] is output["past_key_values"] is cache
        assert output.get("past_key_values") is cache
        output[name] = other
        assert output.cache is output.past_key_values is other
        setattr(output, name, cache)
        assert output.cache is output.past_key_values is cache
        assert output == kind(**required, cache=cache)
        assert pickle.loads(pickle.dumps(output)).past_key_values.get_seq_length() == 0
    with pytest.raises(TypeError, match="cache and past_key_values are two names of one argument"):
        kind(**required, cache=cache, past_key_values=cache)
    assert kind(**required).past_key_values is None
    assert "past_key_values" not in kind(**required)


def test_outputs_without_a_cache_lack_both_names():
    output = ours.TokenClassifierOutput(logits=torch.zeros(1))
    for name in ("cache", "past_key_values"):
        assert not hasattr(output, name)
        with pytest.raises(KeyError, match=name):
            output[name] = DynamicCache()
        with pytest.raises(TypeError, match="cache"):
            ours.TokenClassifierOutput(**{name: DynamicCache()})


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_compiled_code_uses_both_names(name):
    def rebuilt(x: torch.Tensor) -> torch.Tensor:
        output = ours.CausalLMOutputWithPast(logits=x, **{name: x + 1})
        output.past_key_values = output[name] * 2
        return output.cache + output.past_key_values + getattr(output, name)

    compiled = torch.compile(rebuilt, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 12.0))
