"""`model.loss` beside the loss of `forward`: the same value and gradients, without all logits."""

import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference, training
from torchgguf.models.blocks import chunked_loss

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])
LABELS = IDS.clone()
LABELS[0, :4] = -100


@pytest.fixture(autouse=True)
def chunks_of_three_positions(monkeypatch):
    monkeypatch.setattr(chunked_loss, "LOGITS_IN_MEMORY", 3 * 400)


def loss_and_gradients(model, loss):
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.detach(), gradients


# Of every way in which heads finish logits: softcaps, scales, biases, and losses of routers.
@pytest.mark.parametrize(
    "name",
    ["llama", "llama-tied", "gemma2", "gemma3n", "cohere", "granite", "falconh1", "phi", "mamba", "qwen3moe"],
)
def test_as_forward(name):
    model = training(counterpart(reference(CASES[name])))
    options = {"output_router_logits": True} if name == "qwen3moe" else {}
    expected = model(IDS, labels=LABELS, use_cache=False, **options).loss
    expected, gradients = loss_and_gradients(model, expected)
    loss, found = loss_and_gradients(model, model.loss(IDS, LABELS, **options))
    assert_close(loss, expected, atol=1e-5, rtol=0)
    assert found.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert_close(found[key], gradient, atol=1e-5, rtol=1e-4, msg=key)


def test_divisor_dtype_and_no_gradients():
    model = counterpart(reference(CASES["llama"])).to(torch.bfloat16)
    with torch.no_grad():
        expected = model(IDS, labels=LABELS, num_items_in_batch=5).loss
        loss = model.loss(IDS, LABELS, num_items_in_batch=torch.tensor(5))
    assert_close(loss, expected, atol=1e-5, rtol=0)
    assert not loss.requires_grad and loss.dtype is torch.float32


def test_labels_by_default():
    model = counterpart(reference(CASES["llama"]))
    assert_close(model.loss(IDS), model(IDS, labels=IDS).loss)
    with pytest.raises(ValueError, match="needs labels"):
        model.loss(inputs_embeds=torch.zeros(1, 2, 64))
    with pytest.raises(ValueError, match="labels must be a token for each position"):
        model.loss(IDS, LABELS[:, 1:])


def test_all_labels_ignored():
    """As in torch, a mean of nothing is NaN; with a divisor it is 0, and so are gradients."""
    model = counterpart(reference(CASES["llama"]))
    ignored = torch.full_like(IDS, -100)
    assert model.loss(IDS, ignored).isnan()
    loss = model.loss(IDS, ignored, num_items_in_batch=3)
    loss.backward()
    assert loss == 0 and not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_never_all_logits():
    """No tensor of the step is larger than a chunk's logits, but for parameters and their gradients."""
    model = counterpart(reference(CASES["llama"]))
    sizes = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[0]))
    model.loss(IDS).backward()
    assert sizes == [3, 3, 3, 3]
