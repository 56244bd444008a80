"""Checkpoints of other classes, of other heads and of older versions of transformers."""

import shutil

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.models.folders import assert_same_weights, change_config, change_tensors, said, save_references
from tests.models.tiny import CASES, SIZES, reference
from torchgguf.models import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    LlamaForCausalLM,
    LlamaModel,
)

IDS = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where transformers has saved some of the tiny models."""
    names = ("gpt2", "llama", "llama-tied", "qwen2", "qwen2moe")
    return save_references(names, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def llama(folders, tmp_path):
    """A copy of a checkpoint, to be changed."""
    return shutil.copytree(folders / "llama", tmp_path / "llama")


def test_without_head_and_with(folders, tmp_path, caplog):
    """Names have a prefix or none; a head that is not asked for is left out."""
    theirs = transformers.LlamaModel.from_pretrained(folders / "llama")
    body = LlamaModel.from_pretrained(folders / "llama")
    assert_same_weights(theirs, body)
    assert_same_weights(theirs, AutoModel.from_pretrained(folders / "llama"))
    body.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "embed_tokens.weight" in file.keys()  # noqa: SIM118
    assert_same_weights(theirs, transformers.LlamaModel.from_pretrained(tmp_path))
    assert not said(caplog)

    whole = LlamaForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(theirs, whole.model)
    (warning,) = said(caplog)
    assert "lm_head.weight" in warning and "embed_tokens" not in warning
    assert whole.lm_head.weight.std().item() == pytest.approx(SIZES["initializer_range"], rel=0.1)


@torch.no_grad()
def test_new_head(folders, tmp_path, caplog):
    model = AutoModelForSequenceClassification.from_pretrained(
        folders / "qwen2", num_labels=3, pad_token_id=0, dtype="bfloat16"
    )
    (warning,) = said(caplog)
    assert "score.weight" in warning and "model." not in warning
    assert model.score.weight.shape == (3, SIZES["hidden_size"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert_same_weights(
        transformers.Qwen2Model.from_pretrained(folders / "qwen2", dtype="bfloat16"), model.model
    )
    caplog.clear()
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not said(caplog)
    assert theirs.config.num_labels == again.config.num_labels == 3
    assert_same_weights(theirs, again)
    assert_close(again(IDS).logits, theirs(IDS).logits, atol=0.05, rtol=0)
    resized = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True
    )
    assert resized.score.weight.shape[0] == 5


def test_what_there_is_of_a_head_is_kept(folders, tmp_path, caplog):
    theirs = transformers.LlamaForTokenClassification(reference(CASES["llama"]).config)
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["Other"])
    change_tensors(tmp_path, lambda tensors: tensors.pop("score.bias"))
    model = AutoModelForTokenClassification.from_pretrained(tmp_path)
    (warning,) = said(caplog)
    assert "score.bias" in warning and "score.weight" not in warning
    assert torch.equal(model.score.weight, theirs.score.weight)
    assert not model.score.bias.any()


def test_prefix_of_another_class(folders, tmp_path):
    """In checkpoints of some classes the model has another name; in those of others still the usual one."""
    theirs = transformers.LlamaForQuestionAnswering(reference(CASES["llama"]).config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "theirs")
    assert_same_weights(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    assert_same_weights(theirs, transformers.LlamaForQuestionAnswering.from_pretrained(tmp_path / "ours"))
    from_lm = AutoModelForQuestionAnswering.from_pretrained(folders / "llama")
    assert_same_weights(transformers.LlamaModel.from_pretrained(folders / "llama"), from_lm.transformer)


def test_what_older_versions_saved_along(llama):
    def add(tensors):
        for i in range(3):
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    change_tensors(llama, add)
    assert_same_weights(reference(CASES["llama"]), LlamaForCausalLM.from_pretrained(llama))


def test_the_first_gpt2(folders, tmp_path):
    """OpenAI's has no prefix though it claims to be whole, a mask in every layer, and its head is tied."""
    folder = shutil.copytree(folders / "gpt2", tmp_path / "gpt2")
    tensors = load_file(folder / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for name in [name for name in old if name.endswith("attn.c_attn.weight")]:
        stem = name.removesuffix("c_attn.weight")
        old |= {f"{stem}bias": torch.ones(1, 1, 8, 8).tril(), f"{stem}masked_bias": torch.tensor(-1e4)}
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same_weights(reference(CASES["gpt2"]), AutoModelForCausalLM.from_pretrained(folder))
    assert_same_weights(transformers.GPT2Model.from_pretrained(folder), AutoModel.from_pretrained(folder))


def test_experts_together_and_apart(folders, tmp_path):
    """Released files hold each expert's matrices, as we write them; others hold all experts' in one."""
    theirs = reference(CASES["qwen2moe"])
    theirs.save_pretrained(tmp_path, save_original_format=False)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.get_slice("model.layers.0.mlp.experts.down_proj").get_shape()[0] > 1
    assert_same_weights(theirs, AutoModelForCausalLM.from_pretrained(tmp_path))

    folder = shutil.copytree(folders / "qwen2moe", tmp_path / "apart")
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"missing tensors: {name}$"):
        AutoModelForCausalLM.from_pretrained(folder)
    change_config(folder, num_experts=10**5)
    with pytest.raises(ValueError, match=r"missing tensors: model\.layers\.0\.mlp\.experts\.gate_up_proj"):
        AutoModelForCausalLM.from_pretrained(folder)
    change_config(folder, num_experts=theirs.config.num_experts)
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(3, 5)}))
    with pytest.raises(ValueError, match=rf"{name} has shape \(3, 5\), expected"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_tied_head_may_be_there(folders, tmp_path):
    folder = shutil.copytree(folders / "llama-tied", tmp_path / "tied")
    theirs = reference(CASES["llama-tied"])
    embedding = "model.embed_tokens.weight"
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding].clone()}))
    assert_same_weights(theirs, LlamaForCausalLM.from_pretrained(folder))
    change_tensors(folder, lambda tensors: tensors.pop(embedding))
    model = LlamaForCausalLM.from_pretrained(folder)
    assert_same_weights(theirs, model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
