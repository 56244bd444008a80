"""Weights that are too large for a dtype: an error that names them in a file, a warning in a model."""

import logging

import pytest
import torch
from safetensors.torch import load_file

from tests.models.files import edited, packed
from tests.models.tiny import CASES, counterpart, reference
from torchgguf import AutoModelForCausalLM, GGUFQuantizationConfig, open_gguf
from torchgguf.conversion import convert_to_checkpoint, convert_to_gguf

NAME = "model.layers.1.self_attn.q_proj.weight"
GGUF_NAME = "blk.1.attn_q.weight"
LARGE = 1e5  # float16 ends at 65504


def large_model(dtype=torch.float32, value=LARGE):
    """A model with one weight of this size."""
    model = counterpart(reference(CASES["qwen2"])).to(dtype)
    with torch.no_grad():
        model.get_parameter(NAME)[3, 5] = value
    return model


@pytest.fixture(params=["F32", "BF16", "Q8_0"])
def file(request, tmp_path):
    """A file with a tensor of this type that is too large for float16."""
    large_model().save_gguf(tmp_path / "plain.gguf")
    with open_gguf(tmp_path / "plain.gguf") as plain:
        matrix = plain[GGUF_NAME].clone()
    tensors = {GGUF_NAME: matrix if request.param == "F32" else packed(matrix, request.param)}
    return edited(tmp_path / "plain.gguf", tmp_path / "large.gguf", tensors=tensors)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_save_pretrained(dtype, tmp_path):
    large_model(value=1).save_pretrained(tmp_path)
    before = contents(tmp_path)
    model = large_model(dtype)
    with pytest.raises(ValueError, match=rf"'{NAME}' has finite weights that are too large for float16"):
        model.save_pretrained(tmp_path, dtype=torch.float16)
    assert contents(tmp_path) == before
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)
    assert load_file(tmp_path / "model.safetensors")[NAME][3, 5] == torch.tensor(LARGE, dtype=torch.bfloat16)


@pytest.mark.parametrize("loaded", [torch.float32, torch.float16], ids=str)
def test_save_pretrained_of_packed_weights(file, loaded, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(file, dtype=loaded)
    with pytest.raises(ValueError, match=f"'{NAME}'"):
        model.save_pretrained(tmp_path / "out", dtype=torch.float16)
    assert not (tmp_path / "out").exists()  # not even an empty folder
    model.save_pretrained(tmp_path / "out", dtype=torch.float32)
    assert load_file(tmp_path / "out/model.safetensors")[NAME].isfinite().all()


def test_convert_to_checkpoint(file, tmp_path):
    folder = tmp_path / "out"
    convert_to_checkpoint(file, folder, dtype=torch.float32)
    before = contents(folder)
    with pytest.raises(ValueError, match=f"'{NAME}'"):
        convert_to_checkpoint(file, folder, dtype=torch.float16)
    assert contents(folder) == before


def test_files_of_gguf(tmp_path):
    path = tmp_path / "out.gguf"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"'{GGUF_NAME}'"):
        large_model().save_gguf(path, quantization="F16")
    with pytest.raises(ValueError, match=f"'{GGUF_NAME}' has finite weights that are too large for float32"):
        large_model(torch.float64, 1e300).save_gguf(path)  # GGUF files store float64 as F32
    large_model().save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=f"'{GGUF_NAME}'"):
        convert_to_gguf(tmp_path / "checkpoint", path, quantization="F16", tokenizer=False)
    assert path.read_bytes() == b"old"


def test_packing_while_loading(tmp_path):
    large_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"'{NAME}' has finite weights that are too large for float16"):
        AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=GGUFQuantizationConfig("F16"))
    AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=GGUFQuantizationConfig("BF16"))


def test_loading_a_checkpoint_warns_once(tmp_path, caplog):
    model = large_model()
    with torch.no_grad():
        model.model.norm.weight[0] = -LARGE
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float16)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith((NAME, "model.norm.weight"))
    assert "too large for float16 and became infinite (other such tensors: 1)" in message
    assert loaded.get_parameter(NAME)[3, 5].isinf()


def test_unpacking_a_file_warns(file, caplog):
    AutoModelForCausalLM.from_pretrained(file, dequantize=True, dtype=torch.bfloat16)
    assert not caplog.records
    AutoModelForCausalLM.from_pretrained(file, dequantize=True, dtype=torch.float16)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(NAME)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 65504.0])
def test_what_was_not_finite_before_stays(value, tmp_path, caplog):
    model = large_model(value=value)
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    saved = load_file(tmp_path / "half/model.safetensors")[NAME][3, 5].float()
    torch.testing.assert_close(saved, torch.tensor(value), equal_nan=True)
    model.save_pretrained(tmp_path / "wide")
    AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=torch.float16)
    AutoModelForCausalLM.from_pretrained(tmp_path / "wide", quantization_config=GGUFQuantizationConfig("F16"))
    model.save_gguf(tmp_path / "model.gguf")
    convert_to_checkpoint(tmp_path / "model.gguf", tmp_path / "half", dtype=torch.float16)
    assert not caplog.records


def test_unpacking_a_model_names_what_becomes_infinite(file, caplog):
    model = AutoModelForCausalLM.from_pretrained(file)
    with torch.no_grad():
        model.model.norm.weight[0] = LARGE
    model.dequantize(torch.float16)
    assert model.get_parameter(NAME).isinf().any()
    (message,) = (record.getMessage() for record in caplog.records)
    assert "too large for float16 and became infinite (other such tensors: 1)" in message
    caplog.clear()
    AutoModelForCausalLM.from_pretrained(file).dequantize(torch.bfloat16)
    assert not caplog.records
