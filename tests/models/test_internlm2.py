"""InternLM2: a Llama by another name, of which transformers has no class."""

import pytest
import torch

from tests.models.files import edited
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import convert, greedy_text
from tests.support import LLAMA_CPP
from torchgguf import AutoModelForCausalLM, AutoTokenizer, open_gguf

IDS = torch.arange(24)[None] * 7 % 400


def renamed(llama, path):
    """The same file, of InternLM2."""
    with open_gguf(llama) as file:
        keys = {key: value for key, value in file.metadata.items() if key.startswith("llama.")}
    changes = {
        **dict.fromkeys(keys),
        **{key.replace("llama.", "internlm2.", 1): x for key, x in keys.items()},
    }
    return edited(llama, path, {**changes, "general.architecture": "internlm2"})


@torch.no_grad()
def test_logits_are_those_of_a_llama(tmp_path):
    llama = counterpart(reference(CASES["llama"]))
    llama.save_gguf(tmp_path / "llama.gguf")
    file = renamed(tmp_path / "llama.gguf", tmp_path / "internlm2.gguf")
    model = AutoModelForCausalLM.from_pretrained(file)
    assert type(model).__name__ == "InternLM2ForCausalLM"
    assert torch.equal(model(IDS).logits, llama(IDS).logits)
    model.save_gguf(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == file.read_bytes()
    model.save_pretrained(tmp_path / "folder")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert torch.equal(again(IDS).logits, llama(IDS).logits)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA_CPP.exists(), reason="llama.cpp's converter is missing")
def test_llama_cpp_continues_alike(tmp_path):
    llama = convert({"llama": reference(CASES["llama"])}, tmp_path, {})["llama"]
    file = renamed(llama, tmp_path / "internlm2.gguf")
    prompt, tokenizer = "The licenses for most software", AutoTokenizer.from_pretrained(file)
    ids = tokenizer(prompt, return_tensors="pt")
    new = AutoModelForCausalLM.from_pretrained(file).generate(**ids, max_new_tokens=8, do_sample=False)
    text = tokenizer.decode(new[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
    assert text == greedy_text(file, prompt, tokens=8)
