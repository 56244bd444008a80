"""What `forward` takes: transformers' arguments, in its order where they may go without names."""

from inspect import Parameter, signature

import pytest
import transformers

from tests.models.classes import OF_TRANSFORMERS
from tests.peers.transformers import our_name
from torchgguf import GPT2DoubleHeadsModel


@pytest.mark.parametrize(
    "model_class", [*OF_TRANSFORMERS, GPT2DoubleHeadsModel], ids=lambda model_class: model_class.__name__
)
def test_forward(model_class):
    expected = signature(getattr(transformers, model_class.__name__).forward).parameters
    actual = signature(model_class.forward).parameters
    by_place = [name for name, each in actual.items() if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    assert by_place == [our_name(name) for name in expected][: len(by_place)]
    # By their names transformers' Trainer finds out what of a data set a model takes.
    named = {"input_ids", "attention_mask", "labels", "start_positions", "end_positions"}
    assert named & expected.keys() <= actual.keys()
