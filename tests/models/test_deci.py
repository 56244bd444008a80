"""DeciLM, whose layers differ in size; transformers has no class: llama.cpp is the reference."""

import json

import gguf
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.testing import assert_close

from tests.models.case import SIZES, rope
from tests.models.files import edited
from tests.models.without_peer import UNEQUAL_LAYERS
from tests.peers.llama_cpp import convert_folders, greedy_text
from tests.peers.vocabularies import add_tokenizer
from tests.support import LLAMA_CPP
from torchgguf import AutoModelForCausalLM, AutoTokenizer, DeciLMConfig, DeciLMForCausalLM
from torchgguf.container import GGUFError

IDS = torch.arange(48).view(2, 24) * 7 % 400
ROPE = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)


def make(**config):
    torch.manual_seed(0)
    sizes = {**SIZES, "initializer_range": 0.1, **ROPE, **UNEQUAL_LAYERS, **config}
    model = DeciLMForCausalLM(DeciLMConfig(**sizes)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    return model


def folder_of_nvidia(model, folder):
    """The same model as NVIDIA's checkpoints state it."""
    config, state = model.config, model.state_dict()
    sizes = zip(*(getattr(config, name) for name in list(UNEQUAL_LAYERS)[1:]), strict=True)
    blocks = []
    for i, (heads, key_heads, size) in enumerate(sizes):
        attention = {
            "n_heads_in_group": heads // key_heads if key_heads else None,
            "replace_with_linear": heads > 0 == key_heads,
        }
        blocks.append({"attention": attention, "ffn": {"ffn_mult": size * 1.5 / 64 if size else None}})
        if attention["replace_with_linear"]:
            stored = f"model.layers.{i}.self_attn."
            state[f"{stored}linear_attn.weight"] = state.pop(f"{stored}o_proj.weight")
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    stated = {
        **{key: value for key, value in config.to_dict().items() if not key.endswith("_per_layer")},
        "architectures": ["DeciLMForCausalLM"],
        "block_configs": blocks,
    }
    (folder / "config.json").write_text(json.dumps(stated))


def add_fast_tokenizer(folder):
    add_tokenizer(folder, "llama")
    transformers.LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
@torch.no_grad()
def test_llama_cpp_converts_and_continues_alike(tmp_path):
    model = make()
    folder_of_nvidia(model, tmp_path / "hf")
    add_fast_tokenizer(tmp_path / "hf")
    convert_folders([(tmp_path / "hf", tmp_path / "theirs.gguf", "f32", "")])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs.gguf")
    assert again.config.num_key_value_heads_per_layer == UNEQUAL_LAYERS["num_key_value_heads_per_layer"]
    assert_close(again(IDS).logits, model(IDS).logits, atol=1e-4, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "theirs.gguf")
    again.save_gguf(tmp_path / "again.gguf", tokenizer=tokenizer)
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "theirs.gguf").read_bytes()
    model.save_gguf(tmp_path / "ours.gguf", tokenizer=tokenizer)
    ours, theirs = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("ours", "theirs"))
    tensors = {tensor.name: tensor.data.tobytes() for tensor in ours.tensors}
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        if tensor.name != "rope_freqs.weight":  # calculated, in another order of operations
            assert tensors[tensor.name] == tensor.data.tobytes(), tensor.name
    for key, field in theirs.fields.items():
        if key.startswith("deci."):
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
    # As tokens: the converter writes this vocabulary without the order in which to join them.
    prompt = IDS[:1]
    new = model.generate(prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1] :]
    for name in ("ours", "theirs"):
        text = greedy_text(tmp_path / f"{name}.gguf", prompt[0].tolist())
        assert tokenizer.decode(new, skip_special_tokens=True) == text


def test_layers_that_are_alike_are_one_number(tmp_path):
    """As in files of DeciLM-7B, which state a list of key/value heads alone."""
    alike = dict.fromkeys([*UNEQUAL_LAYERS][1:])
    model = make(num_hidden_layers=2, **alike)
    model.save_gguf(tmp_path / "x.gguf")
    assert gguf.GGUFReader(tmp_path / "x.gguf").fields["deci.feed_forward_length"].contents() == 96
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x.gguf").config.num_key_value_heads == 2
    lists = {"deci.attention.head_count_kv": [2, 2], "deci.attention.head_count": [4, 4]}
    edited(tmp_path / "x.gguf", tmp_path / "lists.gguf", lists)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "lists.gguf")
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    for wrong in ([2], [2, -1], [2, 1 << 30], "2", [2.0, 2.0], 0):
        edited(tmp_path / "x.gguf", tmp_path / "wrong.gguf", {"deci.attention.head_count_kv": wrong})
        with pytest.raises(GGUFError, match=r"attention\.head_count_kv must be"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "wrong.gguf")
    with pytest.raises(ValueError, match="layer 1 must have a multiple of its 3 key/value heads, got 4"):
        DeciLMConfig(
            num_hidden_layers=2, num_attention_heads_per_layer=[6, 4], num_key_value_heads_per_layer=[3, 3]
        )
    with pytest.raises(ValueError, match="intermediate_size_per_layer must have one number"):
        DeciLMConfig(num_hidden_layers=2, intermediate_size_per_layer=[1])
