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
    """An output whose values are tensors, tuples of them and, where a cache would be, one more."""
    kind = getattr(module, name)
    values = {f.name: torch.full((2, i + 1), float(i)) for i, f in enumerate(fields(kind))}
    values |= {n: (values[n], values[n] + 1) for n in values if n in ("hidden_states", "attentions")}
    return kind(**{n: v for n, v in values.items() if n not in without})


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_those_of_transformers(name):
    assert [f.name for f in fields(getattr(ours, name))] == [f.name for f in fields(getattr(theirs, name))]


@pytest.mark.parametrize("without", [(), ("past_key_values", "hidden_states"), ("loss",)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_reading(name, without):
    mine, reference = filled(ours, name, without), filled(theirs, name, without)
    assert list(mine.keys()) == list(reference.keys())
    assert len(mine) == len(reference)
    assert_close(mine.to_tuple(), reference.to_tuple())
    assert_close((*mine,), reference.to_tuple())
    assert_close(tuple(mine.values()), tuple(reference.values()))
    assert_close(dict(mine.items()), dict(reference.items()))
    assert_close(dict(**mine), dict(**reference))
    for place in (0, -1, slice(1), slice(1, 3), slice(None)):
        assert_close(mine[place], reference[place])
    for key in without:
        assert getattr(mine, key, None) is None
        assert key not in mine
        with pytest.raises(KeyError, match=key):
            mine[key]
    for key in reference:
        assert key in mine
        assert mine[key] is getattr(mine, key)


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
