"""transformers' Trainer takes our models for its own: a step from a batch in parts is one from the whole."""

import accelerate
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


@pytest.fixture(scope="module")
def rows():
    ids = torch.randint(3, 90, (8, 6), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer_of(model, rows, folder, steps=2, **options):
    """A Trainer with its default settings, as far as files are concerned."""
    arguments = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=2,
        max_steps=steps,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)


def assert_same_weights(model, expected, atol=0.0):
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys()
    for name, value in model.state_dict().items():
        assert_close(value, state[name], atol=atol, rtol=0, msg=name)


KINDS = ["llama", "llama-tied", "gpt2", "qwen2moe"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_saves_loads(kind, rows, tmp_path):
    """Here and in transformers, whose own model is trained to the same weights."""
    theirs = reference(CASES[kind])
    ours = counterpart(theirs)
    for model in (ours, theirs):
        trainer = trainer_of(model, rows, tmp_path / type(model).__module__)
        trainer.train()
        assert trainer.model is model
        trainer.save_model(tmp_path / type(model).__module__ / "last")
    assert_same_weights(ours, theirs, atol=1e-4)
    for folder in ("checkpoint-2", "last"):
        folder = tmp_path / type(ours).__module__ / folder
        assert_same_weights(torchgguf.AutoModelForCausalLM.from_pretrained(folder), ours)
        assert_same_weights(transformers.AutoModelForCausalLM.from_pretrained(folder), ours)


@pytest.mark.parametrize(
    ("kind", "shards"), [("llama", False), ("gpt2", False), ("llama-tied", True), ("qwen2moe", True)]
)
def test_resume(kind, shards, rows, tmp_path):
    """Four steps are two and two."""
    whole, first, second = (counterpart(reference(CASES[kind])) for _ in range(3))
    trainer_of(whole, rows, tmp_path / "whole", 4, save_strategy="no", lr_scheduler_type="constant").train()
    trainer_of(first, rows, tmp_path / "parts", 2, lr_scheduler_type="constant").train()
    if shards:
        first.save_pretrained(tmp_path / "parts" / "checkpoint-2", max_shard_size="50KB")
    again = trainer_of(second, rows, tmp_path / "parts", 4, lr_scheduler_type="constant")
    again.train(resume_from_checkpoint=True)
    assert_same_weights(second, whole, atol=1e-6)
    assert (second.tied_head is None) == (first.tied_head is None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_model(kind, rows, tmp_path):
    """Here the one of the first step: the largest loss is asked for."""
    model = counterpart(reference(CASES[kind]))
    worse = {"learning_rate": 1e-2, "metric_for_best_model": "loss", "greater_is_better": True}
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    trainer_of(model, rows, tmp_path, 2, load_best_model_at_end=True, **steps, **worse).train()
    first = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
    assert_same_weights(model, first)
    last = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
    assert not torch.equal(last.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated", "ignore:no cache is made")
def test_checkpointing(name, rows, tmp_path):
    plain, model = (counterpart(reference(CASES["llama"])) for _ in range(2))
    trainer_of(plain, rows, tmp_path, save_strategy="no").train()
    trainer_of(model, rows, tmp_path, save_strategy="no", **{name: True}).train()
    assert model.is_activation_checkpointing
    assert_same_weights(model, plain, atol=1e-6)


def test_a_packed_model_warns_once(rows, tmp_path, caplog):
    counterpart(reference(CASES["llama"])).save_gguf(tmp_path / "packed.gguf", quantization="Q8_0")
    model = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf")
    with torch.no_grad():
        model.train()(rows[0]["input_ids"][None])
    model.eval()(rows[0]["input_ids"][None])
    assert not caplog.records
    trainer_of(model, rows, tmp_path / "out", 3, save_strategy="no").train()
    (warning,) = (record.getMessage() for record in caplog.records if record.name.startswith("torchgguf"))
    assert "LlamaForCausalLM is packed: training changes its norms and biases only" in warning
    assert "dequantize()" in warning

    caplog.clear()
    plain = model.dequantize()
    trainer_of(plain, rows, tmp_path / "out", 1, save_strategy="no").train()
    assert not [record for record in caplog.records if record.name.startswith("torchgguf")]


@pytest.mark.parametrize("kind", ["llama-tied", "qwen2moe"])
def test_as_accelerate_saves(kind, tmp_path):
    """https://huggingface.co/docs/accelerate/usage_guides/checkpoint: one process saves what all gathered."""
    accelerator = accelerate.Accelerator(cpu=True)
    model = accelerator.prepare(counterpart(reference(CASES[kind])))
    state = {name: value + 1 for name, value in accelerator.get_state_dict(model).items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model = accelerator.unwrap_model(model)
    options = {"save_function": accelerator.save, "state_dict": state}
    model.save_pretrained(tmp_path / "other", is_main_process=False, **options)
    assert not (tmp_path / "other").exists()
    model.save_pretrained(tmp_path / "main", is_main_process=True, **options)
    saved = torchgguf.AutoModelForCausalLM.from_pretrained(tmp_path / "main")
    for name, value in saved.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert torch.equal(model.state_dict()[name], before[name]), name
    assert (saved.tied_head is None) == (model.tied_head is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.norm.weight"), r"state_dict lacks 'model\.norm\.weight'"),
        (lambda state: state.update(x=torch.zeros(2)), "state_dict has 'x'"),
        (
            lambda state: state.update({"model.norm.weight": torch.zeros(2)}),
            r"model\.norm\.weight has shape \(2,\), in the config \(64,\)",
        ),
    ],
)
def test_a_state_dict_that_is_not_of_the_model(change, message, tmp_path):
    model = counterpart(reference(CASES["llama"]))
    state = model.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path / "out", state_dict=state)
    assert not (tmp_path / "out").exists()
    model.save_pretrained(tmp_path / "out")


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
