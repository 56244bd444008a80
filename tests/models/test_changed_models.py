"""Models whose layers were changed: what is saved loads again, here and elsewhere, or nothing is written."""

import gguf
import pytest
import torch
import transformers
from torch import nn
from torch.testing import assert_close

from tests.conversion.folders import publish, rule_of
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import convert_folders, greedy_text
from torchgguf.conversion import convert_to_gguf
from torchgguf.models import AutoModelForCausalLM, LlamaForSequenceClassification
from torchgguf.tokenization import AutoTokenizer

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folders of tiny models, and GGUF files with their tokenizers."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("llama", "llama-tied", "gpt2"):
        publish(name, folder / name)
        convert_to_gguf(folder / name, folder / f"{name}.gguf", pre=rule_of(name))
    return folder


def drop_layers(model):
    model.model.layers = nn.ModuleList([*model.model.layers][:2])


def drop_layers_and_state_it(model):
    drop_layers(model)
    model.config.num_hidden_layers = 2


def untie(model):
    head = nn.Linear(64, 400, bias=False)
    model.set_output_embeddings(head)


def tie(model):
    model.lm_head.weight = model.model.embed_tokens.weight


CHANGES = {
    "layers": ("llama", drop_layers, r"model\.layers has 2 layers, in the config 3"),
    "layers, stated": ("llama", drop_layers_and_state_it, None),
    "other embedding": (
        "llama",
        lambda model: model.set_input_embeddings(nn.Embedding(410, 64)),
        r"model\.embed_tokens\.weight has shape \(410, 64\), in the config \(400, 64\)",
    ),
    "no MLP": (
        "llama",
        lambda model: model.model.layers[1].set_submodule("mlp", nn.Identity()),
        r"model\.layers\.1\.mlp\.\w+_proj\.weight is missing",
    ),
    "one layer more": (
        "llama",
        lambda model: model.add_module("another", nn.Linear(2, 2)),
        r"another\.weight is not in the config",
    ),
    "config only": (
        "llama",
        lambda model: setattr(model.config, "num_attention_heads", 2),
        r"q_proj\.weight has shape \(64, 64\), in the config",
    ),
    "invalid config": (
        "llama",
        lambda model: setattr(model.config, "hidden_act", "gelu_7"),
        r"model\.config describes an invalid model",
    ),
    "untied": ("llama-tied", untie, None),
    "tied": ("llama", tie, None),
    "more rows": ("llama", lambda model: model.resize_token_embeddings(410), None),
    "more tied rows": ("gpt2", lambda model: model.resize_token_embeddings(410), None),
}


@pytest.mark.parametrize("way", ["save_gguf", "save_pretrained"])
@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_saved_or_refused(files, tmp_path, change, way):
    name, apply, error = CHANGES[change]
    model = AutoModelForCausalLM.from_pretrained(files / f"{name}.gguf", dequantize=True)
    apply(model)
    place = tmp_path / "saved"
    if error is not None:
        with pytest.raises(ValueError, match=error) as caught:
            getattr(model, way)(place)
        assert "\n" not in str(caught.value)
        assert not place.exists()
        return
    getattr(model, way)(place)
    again = AutoModelForCausalLM.from_pretrained(place)
    assert_close(again(IDS).logits, model(IDS).logits, atol=1e-5, rtol=0)
    if way == "save_pretrained":
        theirs = transformers.AutoModelForCausalLM.from_pretrained(place)
        assert_close(theirs(IDS).logits, model(IDS).logits, atol=1e-4, rtol=0)


def test_packed_layers_that_were_dropped(files, tmp_path):
    convert_to_gguf(files / "llama", tmp_path / "packed.gguf", quantization="Q8_0")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "packed.gguf")
    drop_layers(model)
    with pytest.raises(
        ValueError, match=r"model\.layers has 2 layers, in the config 3 \(num_hidden_layers\)"
    ):
        model.save_gguf(tmp_path / "out.gguf")
    model.config.num_hidden_layers = 2
    model.save_gguf(tmp_path / "out.gguf")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out.gguf")
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_a_head_of_another_task(tmp_path):
    model = counterpart(
        reference(CASES["llama"], "AutoModelForSequenceClassification"),
        auto_class="AutoModelForSequenceClassification",
    )
    model.score = nn.Linear(64, 5, bias=False)
    with pytest.raises(ValueError, match=r"score\.weight has shape \(5, 64\), in the config \(2, 64\)"):
        model.save_pretrained(tmp_path / "out")
    model.config.num_labels = 5
    model.save_pretrained(tmp_path / "out")
    assert LlamaForSequenceClassification.from_pretrained(tmp_path / "out").score.weight.shape == (5, 64)


def vocabulary(path):
    fields = gguf.GGUFReader(path).fields
    return {name: fields[f"tokenizer.ggml.{name}"].contents() for name in fields_of(fields)}


def fields_of(fields):
    return [
        key.rpartition(".")[2]
        for key in ("tokens", "token_type", "scores")
        if f"tokenizer.ggml.{key}" in fields
    ]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_rows_beyond_the_vocabulary(files, tmp_path, name):
    """They are unused tokens, as llama.cpp's converter writes them; llama.cpp runs the file as before."""
    model = AutoModelForCausalLM.from_pretrained(files / f"{name}.gguf", dequantize=True)
    model.resize_token_embeddings(410)
    with torch.no_grad():  # new rows are likely as an average one: no text continues with them
        model.get_output_embeddings().weight[400:] = 0
    model.save_gguf(tmp_path / "kept.gguf")
    tokenizer = AutoTokenizer.from_pretrained(files / f"{name}.gguf")
    model.save_gguf(tmp_path / "given.gguf", tokenizer=tokenizer)

    theirs = transformers.AutoModelForCausalLM.from_pretrained(files / name)
    theirs.resize_token_embeddings(410)
    publish(name, tmp_path / name)
    theirs.save_pretrained(tmp_path / name)
    convert_folders([(tmp_path / name, tmp_path / "theirs.gguf", "f32", rule_of(name) or "")])

    expected = vocabulary(tmp_path / "theirs.gguf")
    assert expected["tokens"][400:] == [f"[PAD{i}]" for i in range(400, 410)]
    assert vocabulary(tmp_path / "kept.gguf") == vocabulary(tmp_path / "given.gguf") == expected
    text = greedy_text(files / f"{name}.gguf", "the free", tokens=6)
    assert greedy_text(tmp_path / "kept.gguf", "the free", tokens=6) == text


def test_fewer_rows_than_tokens(files, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(files / "llama.gguf", dequantize=True)
    model.resize_token_embeddings(390)
    with pytest.raises(ValueError, match=r"has 400 tokens, but the model only 390 embeddings"):
        model.save_gguf(tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    model.save_pretrained(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size == 390
