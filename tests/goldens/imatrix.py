"""Make tests/data/imatrix: tiny models, and what llama.cpp's llama-imatrix makes of them.

Usage: python -m tests.goldens.imatrix PATH_TO_LLAMA_IMATRIX [NAME...]

With names, only the files of these models are made anew.

The models are random ones of transformers, converted to F32 by llama.cpp's converter (which
scripts/fetch_models.py fetches), so that only sums round differently. The text is tests/data/gpl-3.0.txt. For
each model there is its importance matrix, NAME.imatrix.gguf, and the perplexity after each chunk, in
figures.json; for some the same in the older format, and what the tool reads from that, merges and prints.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.models.tiny import EXPERTS, Case, reference
from tests.peers.llama_cpp import convert
from tests.support import ROOT

TEXT = ROOT / "tests" / "data" / "gpl-3.0.txt"
GOLDENS = ROOT / "tests" / "data" / "imatrix"
CHUNK_SIZE, CHUNKS = 32, 5

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
EXPERTS_OF_SMALL = {
    "num_experts": 12,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}
CASES = {
    "llama": Case("Llama", {**SMALL, "num_hidden_layers": 2}),
    "qwen2moe": Case("Qwen2Moe", {**SMALL, **EXPERTS, **EXPERTS_OF_SMALL}),
    "gpt2": Case("GPT2", {"n_embd": 32, "n_layer": 1, "n_positions": CHUNK_SIZE, "n_ctx": CHUNK_SIZE}),
    "bloom": Case("Bloom", {"hidden_size": 32, "n_layer": 1, "seq_length": 256}),
    "phi": Case("Phi3", {**SMALL, "tie_word_embeddings": True}),
    "kimi": Case(
        "KimiLinear",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "layer_types": ["full_attention", "linear_attention"],
            "mlp_layer_types": ["dense", "sparse"],
            "linear_num_heads": 4,
            "linear_head_dim": 8,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": None,
            "rms_norm_eps": 1e-6,  # llama.cpp's for lengths of queries and keys, too
        },
    ),
    "lfm2moe": Case(
        "Lfm2Moe",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "layer_types": ["full_attention", "conv"],
            "num_dense_layers": 1,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
}
IN_BOTH_FORMATS = ("llama", "qwen2moe")


def main(tool: str, *names: str) -> None:
    """Make everything anew, or the files of some models."""
    tool = str(Path(tool).resolve())
    figures: dict[str, dict[str, Any]] = {}
    if names:
        figures = json.loads((GOLDENS / "figures.json").read_text())["models"]
    else:
        shutil.rmtree(GOLDENS, ignore_errors=True)
        GOLDENS.mkdir()
    chosen = {name: CASES[name] for name in names or CASES}
    with tempfile.TemporaryDirectory() as folder:
        files = convert({name: reference(case) for name, case in chosen.items()}, Path(folder), {})
        for name, file in files.items():
            shutil.move(file, GOLDENS / f"{name}.gguf")
    for name in chosen:
        said = collect(tool, name, "imatrix.gguf", "--chunks", str(CHUNKS))
        figures[name] = {
            "perplexities": [float(x) for x in re.findall(r"\[\d+\]([\d.]+),", said)],
            "estimate": [float(x) for x in re.search(r"PPL = ([\d.]+) \+/- ([\d.]+)", said).groups()],
        }
        if name not in IN_BOTH_FORMATS:
            continue
        collect(tool, name, "imatrix.dat", "--chunks", str(CHUNKS), "--output-format", "dat")
        run(tool, name, "--in-file", f"{name}.imatrix.dat", "-o", f"{name}.from_dat.gguf")
        collect(tool, name, "two.gguf", "--chunks", "2")
        collect(tool, name, "two.dat", "--chunks", "2", "--output-format", "dat")
        pair = [x for part in ("imatrix.gguf", "two.gguf") for x in ("--in-file", f"{name}.{part}")]
        run(tool, name, *pair, "-o", f"{name}.merged.gguf", "-c", str(CHUNK_SIZE))
        figures[name]["statistics"] = statistics(tool, name)
    (GOLDENS / "figures.json").write_text(json.dumps({"chunk_size": CHUNK_SIZE, "models": figures}) + "\n")


def collect(tool: str, name: str, out: str, *options: str) -> str:
    """Let the tool read the text, one chunk a batch, and return what it says."""
    size = str(CHUNK_SIZE)
    chunk_by_chunk = ("-c", size, "-b", size, "-ub", size, "-t", "1")
    exact = ("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off")
    how = (*chunk_by_chunk, *exact, "--process-output", *options)
    shutil.copy(TEXT, GOLDENS)  # the tool writes down the path that it is given
    try:
        said = ""
        while "Final estimate" not in said:  # it may end before it has said all
            said = run(tool, name, "-f", TEXT.name, "-o", f"{name}.{out}", *how)
        return said
    finally:
        (GOLDENS / TEXT.name).unlink()


def statistics(tool: str, name: str) -> list[list[str]]:
    """Return the table that the tool prints of a matrix, a row a tensor."""
    said = ""
    while "weighted average" not in said:  # it may end before it has said all
        said = run(tool, name, "--show-statistics", "--in-file", f"{name}.imatrix.gguf")
    lines = [line.split() for line in said.splitlines()]
    return [line[2:] for line in lines if len(line) == 15 and line[-2].endswith("%")]


def run(tool: str, name: str, *arguments: str) -> str:
    """Run the tool where the files are, and return what it says. It wants a model even if it needs none."""
    done = subprocess.run(
        [tool, "-m", f"{name}.gguf", *arguments], cwd=GOLDENS, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


if __name__ == "__main__":
    main(*sys.argv[1:])
