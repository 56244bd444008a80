"""Parameters that files contain in another form: what was read is written, until it changes."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from torchgguf.nn import FormedLayer, UnitOffsetRMSNorm
from torchgguf.nn.file_forms import NEGATIVE_EXP


class Decaying(FormedLayer):
    """A layer with a rate of decay."""

    file_forms: ClassVar = {"A_log": NEGATIVE_EXP}

    def __init__(self) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(400, 3))


def stored(layer: nn.Module, name: str) -> torch.Tensor:
    """What a file would contain."""
    return next(slot.read() for slot in layer.slots() if slot.name == name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layer", "name", "form"),
    [
        (Decaying(), "A_log", NEGATIVE_EXP),
        (UnitOffsetRMSNorm(1200), "weight", UnitOffsetRMSNorm.file_forms["weight"]),
    ],
    ids=["decay", "norm"],
)
def test_what_was_read_is_written_until_it_changes(layer, name, form, dtype):
    layer, shape = copy.deepcopy(layer), layer.get_parameter(name).shape
    in_file = -torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.1
    assert not torch.equal(form.to_file(form.to_layer(in_file)), in_file)  # the form does round
    layer.fill(name, in_file)
    layer.to(dtype)
    for each in (layer, copy.deepcopy(layer)):
        assert torch.equal(stored(each, name), in_file)
    with torch.no_grad():
        layer.get_parameter(name)[3] += 0.25
    changed = stored(layer, name)
    # In float32, as llama.cpp's converter calculates: a sum in bfloat16 would be rounded once more.
    assert torch.equal(changed, form.to_file(layer.get_parameter(name).float()))
    assert not torch.equal(changed[3], in_file[3])


def test_numbers_that_a_parameter_does_not_represent_are_used_as_they_were_read():
    """The logarithm of a growth is no real number."""
    layer, shape = Decaying(), (400, 3)
    in_file = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer.fill("A_log", in_file)
    assert_close(layer.in_file_form("A_log"), in_file)
    assert torch.equal(stored(layer, "A_log"), in_file)
    assert_close(copy.deepcopy(layer).in_file_form("A_log"), in_file)
    assert "_A_log_in_file" not in layer.state_dict()
    layer.in_file_form("A_log").sum().backward()
    assert_close(layer.A_log.grad, in_file.clamp(max=0))  # what is not represented is not trained
    with torch.no_grad():
        layer.A_log += 0.5
    changed = torch.where(in_file > 0, in_file, in_file * torch.tensor(0.5).exp())
    assert_close(stored(layer, "A_log"), changed)
    with torch.no_grad():
        layer.A_log.fill_(0.5)
    assert_close(layer.in_file_form("A_log"), -torch.full(shape, 0.5).exp())
    layer.in_file_form("A_log").sum().backward()
    assert layer.A_log.grad.isfinite().all()
