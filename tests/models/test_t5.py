"""The encoders of T5 and UMT5 alone, tiny ones, beside transformers, llama.cpp's converter and runtime."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from torch.testing import assert_close

import torchgguf
from tests.models.tiny import Case, reference
from tests.peers.llama_cpp import convert, embeddings
from tests.support import LLAMA_CPP
from torchgguf.container import GGUFError
from torchgguf.models import AutoModel
from torchgguf.tokenization import AutoTokenizer

_SIZES = {
    "vocab_size": 400,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 3,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
# Heads that together are not as wide as the stream.
_ODD = {**_SIZES, "d_model": 96, "num_heads": 3, "d_kv": 20, "relative_attention_num_buckets": 12}
CASES = {
    "t5": Case("T5", _SIZES),
    "t5-gated-odd-heads": Case("T5", {**_ODD, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-5}),
    "umt5": Case("UMT5", {**_SIZES, "feed_forward_proj": "relu"}),
    "umt5-gated-odd-heads": Case("UMT5", _ODD),
    "t5-half": Case("T5", {**_SIZES, "feed_forward_proj": "gated-gelu"}),
}
HALVES = {"t5-half": "f16"}
LINES = ["The licenses for most software", "and other practical works are designed to take away your freedom"]
# Longer than the distance from which on all buckets are one.
LENGTH = 150


def counterpart(theirs: Any, implementation: str = "sdpa") -> Any:
    """The model here that has the config and the weights of a transformers one, and the same class."""
    config = torchgguf.AutoConfig.for_model(**theirs.config.to_dict())
    ours = getattr(torchgguf, type(theirs).__name__)(config, implementation).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    models = {name: reference(case, "AutoModelForTextEncoding") for name, case in CASES.items()}
    for name in HALVES:
        for parameter in models[name].parameters():
            if parameter.dim() > 1:
                parameter.data = parameter.data.half().float()
    return models


@pytest.fixture(scope="module")
def files(originals, tmp_path_factory) -> dict[str, Path]:
    if not LLAMA_CPP.exists():
        pytest.skip("llama.cpp's converter is not there: python scripts/fetch_models.py")
    return convert(originals, tmp_path_factory.mktemp("t5"), HALVES)


def batch(side: str) -> dict[str, torch.Tensor]:
    """Three rows, two with padding, which has other tokens."""
    ids = torch.randint(0, 400, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    places, lengths = torch.arange(LENGTH), torch.tensor([LENGTH, 31, 1])[:, None]
    mask = places < lengths if side == "right" else places >= LENGTH - lengths
    return {"input_ids": ids, "attention_mask": mask.long()}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_states_are_those_of_transformers(originals, name, side, implementation):
    theirs, inputs = originals[name], batch(side)
    ours = counterpart(theirs, implementation)
    mask = inputs["attention_mask"].bool()
    options = {"output_hidden_states": True, "output_attentions": implementation == "eager"}
    actual, expected = ours(**inputs, **options), theirs(**inputs, **options)
    assert type(actual).__name__ == type(expected).__name__
    # An encoder attends to no other: transformers lists none.
    assert list(actual.keys()) == [key for key in expected if key != "cross_attentions"]
    assert_close(actual.last_hidden_state[mask], expected.last_hidden_state[mask], atol=1e-4, rtol=0)
    for one, other in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert_close(one[mask], other[mask], atol=1e-4, rtol=0)
    for one, other in zip(actual.attentions or (), expected.get("attentions") or (), strict=True):
        assert_close(one[0], other[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_transformers(originals, name):
    """Those of the biases too, which all layers share."""
    theirs, inputs = originals[name], batch("right")
    ours, mask = counterpart(theirs).train(), inputs["attention_mask"].bool()
    for model in (ours, theirs):
        model.zero_grad()
        model(**inputs).last_hidden_state[mask].square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for parameter, expected in theirs.named_parameters():
        assert_close(gradients[parameter], expected.grad, atol=1e-4, rtol=1e-3, msg=parameter)


@torch.no_grad()
def test_other_inputs(originals):
    """A batch without a mask, and embeddings in place of tokens."""
    theirs = originals["t5"]
    ours, ids = counterpart(theirs), batch("right")["input_ids"]
    for given in ({"input_ids": ids}, {"inputs_embeds": ours.get_input_embeddings()(ids)}):
        assert_close(ours(**given)[0], theirs(**given)[0], atol=1e-4, rtol=0)
    assert ours(ids, use_cache=True).cache is None
    with pytest.raises(ValueError, match="must be None: an encoder sees all positions at once"):
        ours(ids, past_key_values=torchgguf.DynamicCache())
    assert ours.encoder.embed_tokens is ours.shared
    ours.resize_token_embeddings(410)
    assert ours.encoder.embed_tokens is ours.shared
    assert len(ours.shared.weight) == 410


@pytest.mark.parametrize("how", ["packed", "plain"])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_converted_file_is_read_and_written_back(originals, files, name, how, tmp_path, exact_products):
    model = AutoModel.from_pretrained(files[name], dequantize=how == "plain")
    inputs = batch("right")
    assert type(model).__name__ == type(originals[name]).__name__
    assert model.encoder.embed_tokens is model.shared
    mask = inputs["attention_mask"].bool()
    assert_close(model(**inputs)[0][mask], originals[name](**inputs)[0][mask], atol=1e-4, rtol=0)
    model.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(files[name]))
    assert (tmp_path / "again.gguf").read_bytes() == files[name].read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_from_a_folder_it_is_the_file_that_the_converter_makes(files, name, tmp_path):
    folder, path = files[name].with_suffix(""), tmp_path / "ours.gguf"
    torchgguf.convert_to_gguf(folder, path, quantization=HALVES.get(name, "f32").upper())
    ours, theirs = gguf.GGUFReader(path), gguf.GGUFReader(files[name])
    tensors = {tensor.name: tensor for tensor in ours.tensors}
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for expected in theirs.tensors:
        actual = tensors[expected.name]
        if name in HALVES and expected.name.endswith(".attn_rel_b.weight"):  # llama-quantize packs none
            assert actual.tensor_type == gguf.GGMLQuantizationType.F32
            np.testing.assert_array_equal(actual.data, expected.data)
            continue
        assert (actual.tensor_type, list(actual.shape)) == (expected.tensor_type, list(expected.shape))
        assert actual.data.tobytes() == expected.data.tobytes(), expected.name
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
            assert ours.fields[key].types == field.types, key


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_embeds_as_this_package(originals, files, name, tmp_path):
    """From a file that is written here: those of the converter do not state that attention is not causal.

    llama.cpp's gelu is an approximation in FP16.
    """
    tokenizer = AutoTokenizer.from_pretrained(files[name])
    path = tmp_path / "scratch.gguf"
    counterpart(originals[name]).save_gguf(path, tokenizer=tokenizer)
    model = AutoModel.from_pretrained(path)
    with torch.no_grad():
        states = [model(**tokenizer(line, return_tensors="pt")).last_hidden_state[0] for line in LINES]
    for pooling, vectors in {
        "mean": [each.mean(0) for each in states],
        "cls": [each[0] for each in states],
    }.items():
        actual = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
        assert_close(actual, embeddings(path, LINES, pooling), atol=1e-3, rtol=0)


@torch.no_grad()
def test_checkpoints_of_either_library(originals, files, tmp_path):
    """What is written here transformers reads; of a whole T5 the encoder is read."""
    original, ids = originals["t5"], batch("right")["input_ids"]
    AutoModel.from_pretrained(files["t5"]).save_pretrained(tmp_path / "ours")
    again, info = transformers.T5EncoderModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    assert_close(again.eval()(ids)[0], original(ids)[0], atol=1e-5, rtol=0)
    whole = transformers.T5ForConditionalGeneration(transformers.T5Config(**_SIZES)).eval()
    whole.save_pretrained(tmp_path / "whole")
    ours = torchgguf.T5EncoderModel.from_pretrained(tmp_path / "whole")
    assert_close(ours(ids)[0], whole.encoder(ids)[0], atol=1e-4, rtol=0)


def test_what_is_refused(files, tmp_path):
    model = AutoModel.from_pretrained(files["t5"])
    model.save_gguf(tmp_path / "causal.gguf", metadata={"t5encoder.attention.causal": True})
    with pytest.raises(GGUFError, match=r"attention\.causal = True: an encoder requires false"):
        AutoModel.from_pretrained(tmp_path / "causal.gguf")
    for field, value in {"feed_forward_proj": "gated-silu", "relative_attention_max_distance": 64}.items():
        other = torchgguf.T5EncoderModel(torchgguf.T5Config(**{**_SIZES, field: value}))
        with pytest.raises(ValueError, match=f"GGUF does not support {field}={value!r}"):
            other.save_gguf(tmp_path / "other.gguf")
    with pytest.raises(ValueError, match="relative_attention_num_buckets must be at least 4"):
        AutoModel.from_config(torchgguf.T5Config(**{**_SIZES, "relative_attention_num_buckets": 2}))
    with pytest.raises(ValueError, match="d_model, d_kv, d_ff and num_heads must be above 0"):
        torchgguf.T5Config(**{**_SIZES, "num_heads": 0})
