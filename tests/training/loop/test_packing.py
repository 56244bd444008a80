"""Samples packed in one row are trained as each alone: the same losses, step by step."""

import pytest
import torch

from tests.models.tiny import CASES, counterpart, reference
from tests.training.loop.small import llama, mamba, pairs, sample, texts
from torchgguf.training.data import Item
from torchgguf.training.loop.batch_loss import BatchLoss
from torchgguf.training.loop.batches import distribute, make_batch
from torchgguf.training.loop.run import TrainingRun, can_pack
from torchgguf.training.loop.settings import TrainingSettings

# Of each way in which layers read positions and masks, one.
KINDS = ("llama", "gemma3", "gpt2", "qwen3-sliding", "bloom", "falcon-alibi", "olmo3", "gpt-oss")


@pytest.mark.parametrize("name", [name for name in KINDS if name in CASES])
def test_a_packed_row_has_the_losses_of_its_samples(name):
    losses = BatchLoss(counterpart(reference(CASES[name])).eval())
    generator = torch.Generator().manual_seed(0)
    items = [Item((sample(length, generator, 2),), "") for length in (9, 14, 6)]
    with torch.no_grad():
        packed = losses(make_batch(items, True, torch.device("cpu")), by_sample=True)
        padded = losses(make_batch(items, False, torch.device("cpu")), by_sample=True)
        alone = [losses(make_batch([item], False, torch.device("cpu")), by_sample=True) for item in items]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(padded, torch.cat(alone), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("data", [texts(), pairs()], ids=["texts", "pairs"])
def test_packing_and_the_size_of_passes_change_no_step(data):
    histories = []
    for options in ({}, {"packing": False}, {"tokens_per_pass": 50}, {"gradient_checkpointing": True}):
        settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-2, **options)
        run = TrainingRun(llama(), data, settings)
        assert run.train()
        histories.append(run.history.losses + list(run.history.held_out.values()))
    for other in histories[1:]:
        assert other == pytest.approx(histories[0], abs=1e-5)
    assert run.history.losses[-1] < run.history.losses[0]


def test_a_recurrent_model_pads_in_place_of_packing():
    model = mamba()
    assert not can_pack(model)
    run = TrainingRun(model, texts(8, 0), TrainingSettings(epochs=1, batch_size=4))
    assert not run.packs
    assert run.train()
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="recurrent layers read all of a row"):
        model(torch.ones(1, 4, dtype=torch.int64), attention_mask=mask)


@pytest.mark.parametrize("packed", [True, False])
def test_items_are_distributed_in_groups_of_a_size(packed):
    items = list(texts(24, 0).items)
    groups = distribute(items, 60, packed, shares=2)
    assert len(groups) % 2 == 0
    assert sorted(item.place for group in groups for item in group) == sorted(item.place for item in items)
    for group in groups:
        lengths = [item.length for item in group]
        assert (sum(lengths) if packed else len(lengths) * max(lengths, default=0)) <= 60
    assert [len(group) for group in distribute(items[:1], 10, packed, shares=2)] in ([1, 0], [0, 1])


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (torch.ones(1, 1, 3, 4, dtype=torch.bool), r"attention_mask must be bool \(1 or 1, 1, 4, 4\)"),
        (torch.ones(1, 1, 4, 4), "attention_mask must be bool"),
    ],
)
def test_a_mask_of_another_shape_is_refused(mask, complaint):
    with pytest.raises(ValueError, match=complaint):
        llama()(torch.ones(1, 4, dtype=torch.int64), attention_mask=mask)
