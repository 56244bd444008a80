"""llama.cpp runs what we pack: every recipe, experts, a real model with rows that blocks do not divide."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.models.tiny import EXPERTS, Case, reference
from tests.peers.llama_cpp import convert
from tests.support import LLAMA_CPP, SMOLLM2
from torchgguf.container import open_gguf, write_gguf
from torchgguf.models import AutoModelForCausalLM
from torchgguf.packing import RECIPES, ImportanceMatrix, PackingReport, Quantization, pack_tensors
from torchgguf.packing.column_statistics import Activations
from torchgguf.tokenization import AutoTokenizer

xllamacpp = pytest.importorskip("xllamacpp")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LLAMA_CPP.exists(), reason="no llama.cpp: python scripts/fetch_models.py"),
]

PROMPT = "The licenses for most software and other practical works"
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "initializer_range": 0.1}
EXPERT_SIZES = dict.fromkeys(
    ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 256
)
KINDS = {
    "dense": Case("Llama", WIDE),
    "experts": Case("Qwen2Moe", {**EXPERTS, **WIDE, **EXPERT_SIZES, "num_experts": 8}),
    "convolutions": Case(
        "Lfm2Moe",
        {
            **WIDE,
            **EXPERT_SIZES,
            "intermediate_size": 512,
            "num_experts": 8,
            "num_dense_layers": 1,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_hidden_layers": 3,
        },
    ),
    "odd rows": Case("Llama", {**WIDE, "hidden_size": 288, "intermediate_size": 544}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    models = {name: reference(case) for name, case in KINDS.items()}
    return convert(models, tmp_path_factory.mktemp("wide"), {})


def packed(path: Path, out: Path, recipe: str) -> PackingReport:
    """Pack a file, with all columns alike important."""
    report = PackingReport()
    with open_gguf(path) as file:
        known = {}
        for name, info in file.tensors.items():
            if name.startswith("blk.") and len(info.shape) > 1:
                experts = math.prod(info.shape[:-2])
                sums = torch.ones(experts, info.shape[-1])
                known[name] = Activations(sums, torch.ones(experts, dtype=torch.int64))
        quantization = Quantization(recipe, ImportanceMatrix(known, [], 1, 512), allow_requantize=True)
        metadata = file.metadata.copy()
        write_gguf(out, metadata, pack_tensors(metadata, file.sources(), quantization, report))
    return report


def theirs(path: Path) -> dict[int, float]:
    """The log probabilities of the five likeliest first tokens, by llama.cpp."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 256
    params.cpuparams.n_threads = 1
    params.warmup = False
    # They are of what the model says; the grammar keeps half a character from being what is sampled then.
    request = {"prompt": PROMPT, "max_tokens": 1, "logprobs": 5, "grammar": "root ::= [a-z ]+"}
    answer = xllamacpp.Server(params).handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    first = answer["choices"][0]["logprobs"]["content"][0]
    return {each["id"]: each["logprob"] for each in first["top_logprobs"]}


@torch.no_grad()
def ours(path: Path) -> torch.Tensor:
    """Those of all tokens, by us."""
    ids = AutoTokenizer.from_pretrained(path)(PROMPT, return_tensors="pt").input_ids
    return AutoModelForCausalLM.from_pretrained(path)(ids).logits[0, -1].log_softmax(-1)


def check(path: Path) -> None:
    """Both say the same of a file but for what llama.cpp loses by rounding activations to eight bits."""
    likeliest = theirs(path)
    expected = ours(path)[[*likeliest]]
    torch.testing.assert_close(torch.tensor([*likeliest.values()]), expected, atol=0.4, rtol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(files, recipe, tmp_path):
    packed(files["dense"], tmp_path / "out.gguf", recipe)
    check(tmp_path / "out.gguf")


@pytest.mark.parametrize("recipe", ["MXFP4_MOE", "Q4_K_M", "IQ2_XS"])
def test_experts(files, recipe, tmp_path):
    report = packed(files["experts"], tmp_path / "out.gguf", recipe)
    assert report.tensors["blk.1.ffn_up_exps.weight"].type.name == RECIPES[recipe].type.name
    check(tmp_path / "out.gguf")


@pytest.mark.parametrize("recipe", ["MXFP4_MOE", "Q4_K_M", "IQ2_XS"])
def test_convolutions(files, recipe, tmp_path):
    """Their kernels stay as they are; llama-quantize's choices are in test_planning.py."""
    packed(files["convolutions"], tmp_path / "out.gguf", recipe)
    with open_gguf(tmp_path / "out.gguf") as file:
        types = {name: info.type.name for name, info in file.tensors.items()}
    assert types["blk.0.shortconv.conv.weight"] == "F32"
    assert "F32" not in (types["blk.0.shortconv.in_proj.weight"], types["blk.0.shortconv.out_proj.weight"])
    check(tmp_path / "out.gguf")


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q2_K", "IQ4_XS"])
def test_fallbacks(files, recipe, tmp_path):
    """Blocks of 256 do not divide rows of 288 and of 544 weights."""
    report = packed(files["odd rows"], tmp_path / "out.gguf", recipe)
    assert len(report.fallbacks) >= 7 * WIDE["num_hidden_layers"]
    check(tmp_path / "out.gguf")


@pytest.mark.skipif(not SMOLLM2.exists(), reason="no model: python scripts/fetch_models.py")
def test_fallbacks_of_a_real_model(tmp_path):
    """Blocks of 256 do not divide its rows of 576 weights."""
    report = packed(SMOLLM2, tmp_path / "out.gguf", "Q2_K")
    assert len(report.fallbacks) > 150
    check(tmp_path / "out.gguf")
