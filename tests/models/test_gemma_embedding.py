"""EmbeddingGemma: a Gemma 3 that sees later positions, and files of another architecture."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.files import edited
from tests.models.test_bert import LINES, batch
from tests.models.tiny import Case, counterpart, reference
from tests.peers.llama_cpp import convert, embeddings
from tests.support import LLAMA_CPP
from torchgguf import AutoModel, AutoTokenizer, DynamicCache, Gemma3TextConfig, GGUFError

CASE = Case(
    "Gemma3Text",
    {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 8,  # four positions back, and four forth
        "num_hidden_layers": 6,
        "initializer_range": 0.08,
        "use_bidirectional_attention": True,
    },
)


@pytest.fixture(scope="module")
def original() -> Any:
    return reference(CASE, "AutoModel")


@pytest.fixture(scope="module")
def file(original, tmp_path_factory) -> Path:
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    return convert({"embedder": original}, tmp_path_factory.mktemp("embedders"), {})["embedder"]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_states_are_those_of_transformers(original, side, implementation):
    inputs = {name: batch(side)[name] for name in ("input_ids", "attention_mask")}
    ours, mask = counterpart(original, implementation, "AutoModel"), inputs["attention_mask"].bool()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = original(**inputs, position_ids=positions).last_hidden_state
    actual = ours(**inputs, position_ids=positions).last_hidden_state
    assert_close(actual[mask], expected[mask], atol=1e-4, rtol=0)
    assert_close(ours(inputs["input_ids"])[0], original(inputs["input_ids"])[0], atol=1e-4, rtol=0)


def test_gradients_are_those_of_transformers(original):
    ours, ids = counterpart(original, auto_class="AutoModel"), batch("right")["input_ids"]
    for model in (original, ours):
        model.zero_grad()
        model(ids)[0].square().mean().backward()
    for name, parameter in original.named_parameters():
        assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


def test_a_text_is_read_at_once(original):
    ours, ids = counterpart(original, auto_class="AutoModel"), batch("right")["input_ids"]
    cache = DynamicCache()
    ours(ids, cache=cache)
    with pytest.raises(ValueError, match="cache must be empty: this Gemma3TextModel sees all positions"):
        ours(ids, cache=cache)


def test_windows_are_those_of_transformers():
    """Odd ones too, and those that were read from a config that was written."""
    for window in (8, 9, 512):
        fields = {"sliding_window": window, "use_bidirectional_attention": True}
        ours, theirs = Gemma3TextConfig(**fields), transformers.Gemma3TextConfig(**fields)
        again = Gemma3TextConfig.from_dict(ours.to_dict())
        assert ours.sliding_window == theirs.sliding_window == again.sliding_window
        assert ours.to_dict()["sliding_window"] == theirs.to_dict()["sliding_window"]


@pytest.mark.parametrize("how", ["packed", "plain"])
@torch.no_grad()
def test_a_converted_file_is_read_and_written_back(original, file, how, tmp_path, exact_products):
    model = AutoModel.from_pretrained(file, dequantize=how == "plain")
    ids = batch("right")["input_ids"]
    assert type(model) is torchgguf.Gemma3TextModel and model.config.use_bidirectional_attention
    assert_close(model(ids)[0], original(ids)[0], atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(file))
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    model.save_pretrained(tmp_path / "folder")
    again = transformers.AutoModel.from_pretrained(tmp_path / "folder").eval()
    assert_close(again(ids)[0], original(ids)[0], atol=1e-4, rtol=0)


def test_from_a_folder_it_is_the_file_that_the_converter_makes(file, tmp_path):
    torchgguf.convert_to_gguf(file.with_suffix(""), tmp_path / "ours.gguf", quantization="F32")
    ours, theirs = gguf.GGUFReader(tmp_path / "ours.gguf"), gguf.GGUFReader(file)
    tensors = {tensor.name: tensor for tensor in ours.tensors}
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for expected in theirs.tensors:
        assert tensors[expected.name].data.tobytes() == expected.data.tobytes(), expected.name
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
            assert ours.fields[key].types == field.types, key


def test_llama_cpp_embeds_as_this_package(original, file, tmp_path):
    """Also from a file that is written from scratch, which states the pooling.

    llama.cpp's attention calculates in FP16. With another window, vectors differ by 0.2.
    """
    tokenizer = AutoTokenizer.from_pretrained(file)
    model = counterpart(original, auto_class="AutoModel")
    model.pooling = "mean"
    model.save_gguf(tmp_path / "scratch.gguf", tokenizer=tokenizer)
    with torch.no_grad():
        states = [model(**tokenizer(line, return_tensors="pt"))[0][0] for line in LINES]
    vectors = torch.nn.functional.normalize(torch.stack([each.mean(0) for each in states]), dim=-1)
    assert_close(vectors, embeddings(file, LINES, "mean"), atol=3e-3, rtol=0)
    assert_close(vectors, embeddings(tmp_path / "scratch.gguf", LINES), atol=3e-3, rtol=0)


def test_a_key_that_contradicts_the_architecture(original, tmp_path):
    model = counterpart(original, auto_class="AutoModel")
    model.save_gguf(tmp_path / "x.gguf")
    key = "gemma-embedding.attention.causal"
    AutoModel.from_pretrained(edited(tmp_path / "x.gguf", tmp_path / "y.gguf", {key: False}))
    with pytest.raises(GGUFError, match=r"attention\.causal = True contradicts the architecture"):
        AutoModel.from_pretrained(edited(tmp_path / "x.gguf", tmp_path / "z.gguf", {key: True}))


def test_layers_after_the_pooling_are_not_silently_left_out(original, tmp_path, caplog):
    original.save_pretrained(tmp_path)
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in ("Pooling", "Dense")
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "Pooling").mkdir()
    (tmp_path / "Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert AutoModel.from_pretrained(tmp_path).pooling == "mean"
    assert "layers after the pooling (Dense) are ignored" in caplog.text
