"""DeepSeekMoE: what llama.cpp's converter makes of a checkpoint; its scores: test_without_peer.py."""

import gguf
import pytest
import torch

from tests.models.without_peer import sizes
from tests.peers.llama_cpp import convert_folders
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoConfig, AutoModelForCausalLM, convert_to_gguf


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
def test_the_converter_makes_the_same_file(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model("deepseek", **{**sizes("deepseek"), "routed_scaling_factor": 1.0})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hf")
    add_tokenizer(tmp_path / "hf", "llama")
    convert_folders([(tmp_path / "hf", tmp_path / "theirs.gguf", "f32", "")])
    convert_to_gguf(tmp_path / "hf", tmp_path / "ours.gguf", quantization="F32")
    ours, theirs = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    tensors = {tensor.name: tensor.data.tobytes() for tensor in ours.tensors}
    assert tensors == {tensor.name: tensor.data.tobytes() for tensor in theirs.tensors}
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF.") and key != "deepseek.rope.scaling.type":  # "none" is not stated
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs.gguf")
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
