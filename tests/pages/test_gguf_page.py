"""The page on GGUF, top to bottom: each claim and each snippet, in the page's order.

Snippets are taken out of the page and run as they stand, `transformers` replaced by `torchgguf`. Their
repository comes from a local Hub with a small random stand-in: a file that llama.cpp's converter made of a
Llama, its matrices replaced by Q6_K blocks that ggml packed.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from packaging.requirements import Requirement
from torch.testing import assert_close

import torchgguf
from tests.models.files import edited
from tests.models.tiny import CASES, Case, reference
from tests.pages.pages import GGUF, listed, needs_pages, ours, snippet, snippets, theirs
from tests.peers.llama_cpp import convert, greedy_text
from tests.peers.vocabularies import TEXT
from tests.quants.evidence import Golden, goldens
from tests.support import LLAMA_CPP, QUANT_VECTORS, ROOT
from torchgguf import AutoConfig, AutoModelForCausalLM, AutoTokenizer, open_gguf
from torchgguf.container import TensorSource, TensorType
from torchgguf.nn import PackedLayer

pytestmark = [
    needs_pages,
    pytest.mark.slow,
    pytest.mark.skipif(not QUANT_VECTORS.exists(), reason="ggml's blocks are not there: ../shared/vectors"),
    pytest.mark.skipif(
        not LLAMA_CPP.exists(), reason="llama.cpp's converter is not there: python scripts/fetch_models.py"
    ),
]
REPOSITORY, FILE = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q6_K.gguf"
OTHER_FILE = FILE.replace("Q6_K", "Q4_0")
# Blocks have up to 256 weights, so rows have no fewer.
TINY_LLAMA = Case("Llama", {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2})

QUANTIZATION_TYPES = (
    *("F32", "F16", "BF16"),
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"),
)
# As the page spells them: the class, and a tiny model.
ARCHITECTURES = {
    "LLaMa": ("LlamaForCausalLM", "llama"),
    "Mistral": ("MistralForCausalLM", "mistral-sliding"),
    "Qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "Qwen2Moe": ("Qwen2MoeForCausalLM", "qwen2moe"),
    "Phi3": ("Phi3ForCausalLM", "phi"),
    "Bloom": ("BloomForCausalLM", "bloom"),
}


@pytest.fixture(scope="module")
def originals() -> dict[str, Any]:
    """Models of transformers."""
    models = {name: reference(CASES[case]) for name, (_, case) in ARCHITECTURES.items()}
    return models | {"tinyllama": reference(TINY_LLAMA)}


@pytest.fixture(scope="module")
def files(originals, tmp_path_factory) -> dict[str, Path]:
    """What llama.cpp's converter makes of them: F32.

    It leaves out Mistral's window, without which a Mistral is a Llama, in its file and here.
    """
    folder = tmp_path_factory.mktemp("converted")
    files = convert(originals, folder, {})
    window = {"llama.attention.sliding_window": originals["Mistral"].config.sliding_window}
    return files | {"Mistral": edited(files["Mistral"], folder / "windowed.gguf", window)}


def of_type(name: str, original: Path, path: Path) -> Path:
    """Write a copy of a file whose matrices are random ones of a type."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, TensorSource | torch.Tensor] = {}
    with open_gguf(original) as file:
        for key, info in file.tensors.items():
            if len(info.shape) == 2:
                tensors[key] = random_matrix(name, info.shape, generator)
            elif key != "output_norm.weight":  # smaller, so that the scores of attention are
                tensors[key] = file[key] * 0.1
        return edited(original, path, tensors=tensors)


@cache
def golden_of(name: str) -> Golden:
    """What ggml packed to a type; to some it packs only with an importance matrix."""
    return next(golden for golden in goldens() if golden.file in (name, f"{name}_imatrix"))


def random_matrix(name: str, shape: tuple[int, ...], generator: torch.Generator) -> TensorSource:
    """Blocks of a type that ggml packed, in any order."""
    if name == "F32":
        return TensorSource.of(0.2 * torch.randn(shape, generator=generator))
    golden = golden_of(name)
    blocks = golden.packed.view(-1, golden.type_size)
    order = torch.randint(len(blocks), (shape[0], shape[1] // golden.block_size), generator=generator)
    halves = {"F16": torch.float16, "BF16": torch.bfloat16}
    packed = blocks[order].flatten(1).view(halves.get(name, torch.uint8))
    return TensorSource(shape, TensorType[name], lambda: packed)


@pytest.fixture(scope="module")
def repositories(files, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """As TheBloke's are: several files to choose from, and hardly a config."""
    folder = tmp_path_factory.mktemp("packed")
    paths = [
        of_type(kind, files["tinyllama"], folder / name)
        for kind, name in (("Q6_K", FILE), ("Q4_0", OTHER_FILE))
    ]
    others = {"config.json": b'{\n    "model_type": "llama"\n}', "README.md": b"# TinyLlama\n"}
    return {REPOSITORY: {**{path.name: path.read_bytes() for path in paths}, **others}}


@pytest.fixture(scope="module")
def q6_k(folders) -> Path:
    """The file that the page's snippet loads."""
    return folders / REPOSITORY / FILE


def tokens() -> torch.Tensor:
    return torch.randint(3, 400, (2, 16), generator=torch.Generator().manual_seed(0))


def assert_same_weights(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def test_every_snippet_of_the_page_is_run_here():
    assert [code.splitlines()[0] for code in snippets(GGUF)] == [
        "from transformers import AutoTokenizer, AutoModelForCausalLM",
        "tokenizer.save_pretrained('directory')",
    ]


# --- GGUF and its interaction with transformers


def test_the_hub_lets_tensors_and_metadata_be_inspected_quickly(hub, notebook, q6_k):
    """“Supported by the Hub, which lets tensors and metadata in the file be inspected quickly.”"""
    hub.requests.clear()
    command = [sys.executable, "-m", "torchgguf", "info", f"{REPOSITORY}:{FILE}", "--json"]
    done = subprocess.run(command, env=notebook.environment, capture_output=True, check=True, timeout=120)
    told, reader = json.loads(done.stdout), gguf.GGUFReader(q6_k)
    types = {tensor["name"]: tensor["type"] for tensor in told["tensors"]}
    assert types == {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert told["metadata"].keys() == {key for key in reader.fields if not key.startswith("GGUF.")}
    gets = [request for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    assert gets and all("range" in request.headers for request in gets)


def test_a_single_file_has_all(q6_k, tmp_path):
    """“A single file has config attributes, the tokenizer's vocabulary, other attributes, all tensors.”"""
    alone = shutil.copy(q6_k, tmp_path / "model.gguf")
    config, tokenizer = AutoConfig.from_pretrained(alone), AutoTokenizer.from_pretrained(alone)
    assert (config.model_type, config.hidden_size) == ("llama", TINY_LLAMA.config["hidden_size"])
    text = tokenizer("The licenses for most software", return_tensors="pt")
    assert tokenizer.decode(text.input_ids[0], skip_special_tokens=True) == "The licenses for most software"
    assert AutoModelForCausalLM.from_pretrained(alone)(**text).logits.isfinite().all()


# --- Support within transformers


def test_further_training_and_back_to_the_ggml_ecosystem(files, tmp_path):
    """“Further training and fine-tuning of GGUF models, then conversion back to gguf for use with ggml.”"""
    path, tuned = files["tinyllama"], tmp_path / "tuned.gguf"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dequantize=True)
    ids = tokenizer(TEXT[:400], return_tensors="pt").input_ids
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.save_gguf(tuned, tokenizer=tokenizer)
    prompt = tokenizer("This program is", return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    new = tokenizer.decode(output[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)
    assert greedy_text(tuned, "This program is", tokens=12) == new


def test_dequantized_to_fp32(q6_k):
    """“When a model is loaded, weights are first dequantised to FP32, so that PyTorch can use them.”

    With `dequantize=True`. Otherwise PyTorch uses them as they are, and they may be dequantised later.
    """
    plain = AutoModelForCausalLM.from_pretrained(q6_k, dequantize=True)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in plain.parameters())
    expected = transformers.AutoModelForCausalLM.from_pretrained(q6_k.parent, gguf_file=FILE).state_dict()
    assert_same_weights(plain.state_dict(), expected)
    packed = AutoModelForCausalLM.from_pretrained(q6_k)
    assert any(isinstance(layer, PackedLayer) for layer in packed.modules())
    assert_same_weights(packed.dequantize().state_dict(), expected)


# --- Supported quantization types


def test_list_of_quantization_types():
    assert list(QUANTIZATION_TYPES) == listed(GGUF, "supported-quantization-types")


@pytest.mark.parametrize("name", QUANTIZATION_TYPES)
@torch.no_grad()
def test_quantization_type(name, files, tmp_path):
    """“The supported quantisation types”: a file of each says here what it says in transformers."""
    path = of_type(name, files["tinyllama"], tmp_path / f"{name}.gguf")
    with open_gguf(path) as file:
        assert {info.type.name for info in file.tensors.values() if len(info.shape) == 2} == {name}
    packed = AutoModelForCausalLM.from_pretrained(path)
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    expected = expected(tokens()).logits
    # Packed weights meet activations of fewer bits than FP32 has, which changes the odds of a token a little.
    odds, others = packed(tokens()).logits.log_softmax(-1), expected.log_softmax(-1)
    assert (others.exp() * (others - odds)).sum(-1).mean() < 1e-3
    assert_close(packed.dequantize()(tokens()).logits, expected, atol=1e-4, rtol=1e-4)


def test_the_gguf_package_is_recent_enough():
    """“Needs gguf>=0.10.0 to be installed”: installing torchgguf sees to it."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (needed,) = (each for each in map(Requirement, stated) if each.name == "gguf")
    assert not needed.specifier.contains("0.9.1")


# --- Supported model architectures


def test_list_of_architectures():
    assert list(ARCHITECTURES) == listed(GGUF, "supported-model-architectures")


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_architecture(name, originals, files):
    """“The supported model architectures”: read from GGUF, each says what the original says."""
    model = AutoModelForCausalLM.from_pretrained(files[name])
    assert type(model) is getattr(torchgguf, ARCHITECTURES[name][0])
    assert_close(model(tokens()).logits, originals[name](tokens()).logits, atol=1e-4, rtol=0)


# --- Example usage


def test_tokenizer_and_model_from_the_same_file(hub, notebook, folders):
    """The first snippet: it gives what it gives with transformers, and fetches no other file."""
    code = snippet(GGUF, "gguf_file=filename")
    save = "import torch; torch.save(model.state_dict(), 'weights.pt')"
    shown = f"[tokenizer({TEXT.lstrip()[:300]!r}).input_ids, type(model).__name__]"
    hub.requests.clear()
    actual = notebook.run(ours(code), "model.dequantize()", save, shown)
    fetched = {request.path.rpartition("/")[2] for request in hub.requests if request.sent}
    assert FILE in fetched
    assert not fetched & {OTHER_FILE, "README.md"}
    expected = notebook.run(theirs(code), save, shown, folder=folders)
    assert actual.value == expected.value
    weights = (torch.load(folder / "weights.pt") for folder in (notebook.folder, folders))
    assert_same_weights(*weights)


def test_the_full_version_goes_with_the_tools_of_pytorch(q6_k):
    """“The full, unquantised version in the PyTorch ecosystem, to be combined with many other tools.”"""
    model, ids = AutoModelForCausalLM.from_pretrained(q6_k, dequantize=True), tokens()
    exported = torch.export.export(model, (ids,), {"use_cache": False}, strict=False).module()
    assert_close(exported(ids, use_cache=False).logits, model(ids).logits, atol=1e-4, rtol=1e-4)

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, weights, (ids,), {"labels": ids}).loss

    gradients = torch.func.grad(loss)(dict(model.named_parameters()))
    model(ids, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def exported(notebook) -> Path:
    """The second snippet after the first: the folder that it writes, and in it llama.cpp's GGUF file.

    The last line is for a shell, and here its variables are set. The script is spelled otherwise today.
    """
    *saving, conversion = snippet(GGUF, "save_pretrained").splitlines()
    notebook.run(ours(snippet(GGUF, "gguf_file=filename")), *saving)
    assert conversion == "!python ${path_to_llama_cpp}/convert-hf-to-gguf.py ${directory}"
    command = conversion.removeprefix("!").replace("convert-hf-to-gguf", "convert_hf_to_gguf")
    variables = {
        "path_to_llama_cpp": str(LLAMA_CPP),
        "directory": "directory",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    place = {"cwd": notebook.folder, "env": os.environ | variables}
    done = subprocess.run(f"{command} --outtype f32", shell=True, capture_output=True, text=True, **place)
    assert done.returncode == 0, done.stderr
    return notebook.folder / "directory"


@torch.no_grad()
def test_saved_and_converted_by_llama_cpp(exported, q6_k):
    """“To save the model and export it to gguf again”: what llama.cpp's converter makes says the same."""
    (path,) = exported.glob("*.gguf")
    before, after = (AutoModelForCausalLM.from_pretrained(each, dequantize=True) for each in (q6_k, path))
    assert torch.equal(before(tokens()).logits, after(tokens()).logits)
    before, after = (AutoTokenizer.from_pretrained(each) for each in (q6_k, path))
    assert before(TEXT[:300]).input_ids == after(TEXT[:300]).input_ids
    assert before.get_vocab() == after.get_vocab()


def test_save_gguf_does_it_in_one_call(exported, q6_k, tmp_path):
    """Beyond the page: the same tensors of the same folder, without llama.cpp. What is packed stays so."""
    (converted,) = exported.glob("*.gguf")
    plain, packed = tmp_path / "plain.gguf", tmp_path / "packed.gguf"
    for source, path in ((exported, plain), (q6_k, packed)):
        tokenizer = AutoTokenizer.from_pretrained(source)
        AutoModelForCausalLM.from_pretrained(source).save_gguf(path, tokenizer=tokenizer)
    assert packed.read_bytes() == q6_k.read_bytes()
    with open_gguf(converted) as expected, open_gguf(plain) as actual:
        assert expected.tensors.keys() == actual.tensors.keys()
        assert all(torch.equal(actual[name], expected[name]) for name in expected.tensors)
    assert greedy_text(plain, "This program") == greedy_text(converted, "This program")
