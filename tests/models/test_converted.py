"""llama.cpp's converter and this package: each reads and writes a model as the other does."""

from itertools import product
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.models.tiny import CASES, counterpart, reference
from tests.peers.llama_cpp import convert, greedy_text
from tests.peers.vocabularies import BYTE_LEVEL
from tests.support import LLAMA_CPP
from torchgguf.models import AutoModelForCausalLM
from torchgguf.tokenization import AutoTokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
    ),
]

# The converter drops sliding windows, as llama.cpp has none for these architectures.
CONVERTIBLE = [name for name in CASES if "sliding" not in name]
HALVES = {
    "llama-tied": torch.float16,
    "llama-mha": torch.bfloat16,
    "qwen2-tied": torch.bfloat16,
    "qwen2moe-mha": torch.bfloat16,
    "qwen3-tied-mha": torch.bfloat16,
    "qwen35-tied-odd-heads": torch.bfloat16,
    "qwen3next-tied-odd-heads": torch.bfloat16,
    "gpt2-short": torch.float16,
    "gemma4-experts": torch.bfloat16,
    "gpt-oss": torch.bfloat16,
    "granitemoe-tied-biases": torch.bfloat16,
    "granitemoe-shared": torch.bfloat16,
    "jamba-tied-odd-heads": torch.bfloat16,
    "mamba-untied-odd-sizes": torch.float16,
    "nemotronh-biases-odd-heads": torch.bfloat16,
}
# Without a head, which llama.cpp wants in files of this architecture: we write the embedding a second time.
UNREADABLE = (
    "minimax-tied-odd-heads",
    "qwen2moe-tied",
)
# Zeros for keys that no layer reads, which llama.cpp wants in files of this architecture.
ADDED = {
    "gemma3n-shared": {f"blk.{i}.attn_{part}.weight" for i in (4, 5) for part in ("k", "v", "k_norm")},
}
PUBLISHED_TOKENS = {
    "gemma": ("prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_sep", "fsep", "eot"),
    **dict.fromkeys(("glm", "glm4"), ("bos", "eos", "eot", "unknown")),
    **dict.fromkeys(("glm4moe", "glm4moe-groups"), ("bos", "eot", "eom", "unknown")),
    "nemotron": ("padding", "unknown"),
}
# Cases that llama.cpp runs as converted by its own program, and as written here.
RUN_BY_BOTH = (
    "kimi",
    "kimi-odd-heads",
    "lfm2",
    "lfm2-untied-odd-heads",
    "lfm2moe",
    "lfm2moe-odd-heads",
    "qwen3moe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "mixtral",
    "ministral3",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "gemma4-equal-odd-heads",
    "gemma4-experts",
    "falcon",
    "falcon-new",
    "nemotron",
    "stablelm",
    "stablelm-parallel",
    "olmo2",
    "jais2",
    "olmo",
    "dots1",
    "olmo3",
    "seed",
    "arcee",
    "ernie",
    "exaone4",
    "hunyuan",
    "exaonemoe",
    "bigcode",
    "bigcode-untied-odd-heads",
    "hunyuanmoe",
    "hunyuanmoe-odd-heads",
    "neox",
    "neox-sequential-odd-heads",
    "glm",
    "glm4",
    "glm4moe",
    "glm4moe-groups",
    "minimax",
    "erniemoe",
    "deepseek2",
    "deepseek2-yarn",
    "deepseek3",
    "deepseek3-yarn-groups",
    "cohere",
    "cohere2",
    "starcoder2-untied",
    "gpt-oss",
    "granite-tied-odd-heads",
    "granitemoe",
    "granitemoe-shared",
    "olmoe",
    "phi2",
    "phi2-odd-heads",
    "falconh1",
    "falconh1-tied-odd-heads",
    "granitehybrid",
    "granitehybrid-experts",
    "nemotronh",
    "nemotronh-experts",
    "nemotronh-experts-groups",
    "mamba",
    "mamba2",
    "falcon-mamba",
    "jamba",
)
NAMES_OF_HALVES = {torch.float16: "f16", torch.bfloat16: "bf16"}


class Originals(dict[str, Any]):
    """The models, made on first use; matrices hold only numbers that the type of the file holds too."""

    def __missing__(self, name: str) -> Any:
        model = self[name] = reference(CASES[name])
        if name in HALVES:
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.data = parameter.data.to(HALVES[name]).float()
        return model


class Files(dict[str, Path]):
    """The files of the models, which the converter makes on first use."""

    def __init__(self, originals: Originals, folder: Path) -> None:
        self._originals, self._folder = originals, folder

    def __missing__(self, name: str) -> Path:
        types = {name: NAMES_OF_HALVES[HALVES[name]]} if name in HALVES else {}
        self[name] = convert({name: self._originals[name]}, self._folder, types)[name]
        return self[name]


@pytest.fixture(scope="module")
def originals() -> Originals:
    return Originals()


@pytest.fixture(scope="module")
def files(originals, tmp_path_factory) -> Files:
    return Files(originals, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="module")
def model(request, files) -> tuple[str, Any]:
    """A name, and the model read from the file of that name, packed or not."""
    name, how = request.param
    return name, AutoModelForCausalLM.from_pretrained(files[name], dequantize=how == "plain")


each_model = pytest.mark.parametrize(
    "model", list(product(CONVERTIBLE, ["packed", "plain"])), indirect=True, ids="-".join
)


@each_model
@torch.no_grad()
def test_read(originals, model, exact_products):
    name, ours = model
    ids = torch.randint(0, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    assert_close(ours(ids).logits, originals[name](ids).logits, atol=1e-4, rtol=0)


@each_model
def test_the_class_is_that_of_the_original(originals, model):
    """Mistral's too, whose files call themselves `llama`, if only by their name."""
    name, ours = model
    assert type(ours).__name__ == type(originals[name]).__name__
    assert ours.config.model_type == originals[name].config.model_type


@each_model
def test_written_back_it_is_the_same_file(files, model, tmp_path):
    """Plain parameters too: none of these files has a type that FP32 does not hold."""
    name, ours = model
    ours.save_gguf(tmp_path / "again.gguf", tokenizer=AutoTokenizer.from_pretrained(files[name]))
    assert (tmp_path / "again.gguf").read_bytes() == files[name].read_bytes()


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_from_a_folder_it_is_the_file_that_the_converter_makes(originals, files, name, tmp_path):
    """The tensors byte for byte, and all that is stated."""
    path, folder = tmp_path / "ours.gguf", files[name].with_suffix("")
    halves = NAMES_OF_HALVES[HALVES[name]].upper() if name in HALVES else None
    tokenizer = AutoTokenizer.from_pretrained(folder, pre=BYTE_LEVEL.get(originals[name].config.model_type))
    AutoModelForCausalLM.from_pretrained(folder).save_gguf(path, tokenizer=tokenizer, quantization=halves)
    ours, theirs = gguf.GGUFReader(path), gguf.GGUFReader(files[name])
    tensors = {tensor.name: tensor for tensor in ours.tensors}
    added = {"output.weight"} if name in UNREADABLE else ADDED.get(name, set())
    assert tensors.keys() == {tensor.name for tensor in theirs.tensors} | added
    for expected in theirs.tensors:
        actual = tensors[expected.name]
        assert (actual.tensor_type, list(actual.shape)) == (expected.tensor_type, list(expected.shape))
        if expected.name.startswith("rope_"):  # calculated, in another order of operations
            np.testing.assert_allclose(actual.data, expected.data, rtol=1e-6, err_msg=expected.name)
        else:
            assert actual.data.tobytes() == expected.data.tobytes(), expected.name
    # Said in other words: the runtime reads attn_factor, but not what the converter writes.
    replaced = {"llama.rope.scaling.yarn_attn_factor"}
    # The converter states tokens of the published model that its tokenizer's files do not.
    replaced |= {f"tokenizer.ggml.{token}_token_id" for token in PUBLISHED_TOKENS.get(name, ())}
    if added:
        replaced.add("general.size_label")  # counts what is in the file, as theirs does
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF.") and key not in replaced:
            assert ours.fields[key].contents() == pytest.approx(field.contents()), key
            assert ours.fields[key].types == field.types, key


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "llama-biases",
        "llama-llama3",
        "llama-yarn",
        "llama-linear",
        "qwen2",
        "qwen2moe",
        "qwen3",
        *RUN_BY_BOTH,
        "gpt2-untied-odd-heads",
        "phi-mha-tied",
        "phi-long-partial",
        "bloom-heads-beyond-a-power",
    ],
)
def test_llama_cpp_runs_what_is_written_from_scratch(originals, files, name, tmp_path):
    path, tokenizer = tmp_path / "scratch.gguf", AutoTokenizer.from_pretrained(files[name])
    counterpart(originals[name]).save_gguf(path, tokenizer=tokenizer)
    prompt = "The licenses for most software"
    assert greedy_text(path, prompt) == greedy_text(files[name], prompt)


@pytest.mark.parametrize("name", UNREADABLE)
def test_llama_cpp_runs_what_it_cannot_convert(originals, files, name, tmp_path):
    """And a file that came without a head stays without."""
    path, tokenizer = tmp_path / "scratch.gguf", AutoTokenizer.from_pretrained(files[name])
    model = counterpart(originals[name])
    model.save_gguf(path, tokenizer=tokenizer)
    prompt = "The licenses for most software and other practical works"
    ids = tokenizer(prompt, return_tensors="pt")
    new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == greedy_text(path, prompt, tokens=8)
    with pytest.raises(ValueError, match=f"{type(model.model).__name__} has no head"):
        model.model.save_gguf(tmp_path / "body.gguf")


def test_llama_cpp_continues_as_this_package(originals, files):
    """The same weights, the same greedy text: rotary embedding and linear biases are llama.cpp's."""
    for name in (
        "llama",
        "llama-llama3",
        "llama-yarn",
        "qwen2",
        "qwen2-yarn",
        "qwen2moe",
        "qwen3",
        *RUN_BY_BOTH,
        "gpt2",
        "gpt2-short",
        "phi",
        "phi-short",
        "phi-long-partial",
        "bloom",
        "bloom-odd-heads",
    ):
        tokenizer = AutoTokenizer.from_pretrained(files[name])
        model = AutoModelForCausalLM.from_pretrained(files[name], dequantize=True)
        prompt = tokenizer("The licenses for most software and other practical works", return_tensors="pt")
        new = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt.input_ids.shape[1] :]
        text = greedy_text(files[name], "The licenses for most software and other practical works", tokens=8)
        assert tokenizer.decode(new, skip_special_tokens=True) == text, name
