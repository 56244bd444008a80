"""transformers' Trainer takes our models for its own: a step from a batch in parts is one from the whole."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import CASES, Case, counterpart, reference

LENGTHS = (5, 9)  # of the texts of each part
# How texts are labelled, and what share of the loss each part has: of tokens predicted, or the same.
HEADS = {
    "CausalLM": (lambda ids: ids, [4 / 12, 8 / 12]),
    "SequenceClassification": (lambda ids: ids[:, 0] % 3, [0.5, 0.5]),
    "TokenClassification": (lambda ids: ids % 3, [0.5, 0.5]),
}


def parts(label) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, 90, (2, length), generator=generator) for length in LENGTHS]
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": label(ids)} for ids in texts]


def train(model, batches, folder) -> float:
    """Take one step of gradient descent from all parts; return the loss."""
    rows = [{key: value[i] for key, value in part.items()} for part in batches for i in range(2)]
    arguments = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=len(batches),
        train_sampling_strategy="sequential",
        max_steps=1,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    return transformers.Trainer(model, arguments, train_dataset=rows).train().training_loss


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_step(kind, head, tmp_path):
    case, (label, shares) = CASES[kind], HEADS[head]
    config = {**case.config, "pad_token_id": 1, "num_labels": 3}
    theirs = reference(Case(case.kind, config), f"AutoModelFor{head}").train()
    ours = counterpart(theirs, auto_class=f"AutoModelFor{head}")
    if head == "TokenClassification":
        ours.dropout.p = theirs.dropout.p = 0.0
    batches = parts(label)
    loss = sum(share * theirs(**part).loss for share, part in zip(shares, batches, strict=True))
    assert train(ours, batches, tmp_path) == pytest.approx(loss.item(), abs=1e-4)
    loss.backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1).step()
    trained = dict(ours.named_parameters())
    for path, parameter in theirs.named_parameters():
        assert_close(trained[path], parameter, atol=1e-4, rtol=0, msg=path)


def test_two_heads(tmp_path):
    theirs = transformers.GPT2DoubleHeadsModel(reference(CASES["gpt2"]).config)
    ours = torchgguf.GPT2DoubleHeadsModel(torchgguf.GPT2Config.from_dict(theirs.config.to_dict()))
    ours.load_state_dict(theirs.state_dict())
    batches = parts(lambda ids: ids)
    expected = sum(theirs(**part).loss.item() for part in batches) / 2
    assert train(ours, batches, tmp_path) == pytest.approx(expected, abs=1e-4)


def test_evaluation_leaves_the_cache_out(tmp_path):
    theirs = reference(CASES["llama"])
    arguments = transformers.TrainingArguments(tmp_path, use_cpu=True, report_to=[], disable_tqdm=True)
    batch = parts(lambda ids: ids)[0]
    rows = [{key: value[i] for key, value in batch.items()} for i in range(2)]
    actual, expected = (
        transformers.Trainer(model, arguments).predict(rows) for model in (counterpart(theirs), theirs)
    )
    assert_close(torch.tensor(actual.predictions), torch.tensor(expected.predictions), atol=1e-4, rtol=0)
    assert actual.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], abs=1e-4)
