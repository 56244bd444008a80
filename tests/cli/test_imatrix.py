"""`torchgguf imatrix`: collect, merge, convert, show; and what is said when it cannot."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.packing.imatrices import CHUNK_SIZE, CHUNKS, FIGURES, GOLDENS, TEXT, read
from torchgguf.conversion.importance import collect_importance, encode_texts
from torchgguf.models import AutoModelForCausalLM
from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix
from torchgguf.tokenization import AutoTokenizer

SIZES = ("--ctx-size", CHUNK_SIZE, "--chunks", CHUNKS)


def test_collects_what_llama_imatrix_collects(torchgguf, tmp_path):
    out = tmp_path / "x.gguf"
    result = torchgguf(
        "imatrix", GOLDENS / "qwen2moe.gguf", "--text", TEXT, "-o", out, *SIZES, "--process-output"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    perplexity, error = FIGURES["models"]["qwen2moe"]["estimate"]
    said = re.search(r"perplexity ([\d.]+) ± ([\d.]+)", result.stderr)
    assert [float(x) for x in said.groups()] == pytest.approx([perplexity, error], rel=1e-5)
    found = load_imatrix(out)
    assert (found.datasets, found.chunk_count, found.chunk_size) == ([str(TEXT)], CHUNKS, CHUNK_SIZE)
    expected = read(GOLDENS / "qwen2moe.imatrix.gguf")
    assert sorted(found) == sorted(expected)
    for name, (sums, counts) in expected.items():
        assert found.activations[name].counts.tolist() == counts.tolist()
        wanted = torch.from_numpy(sums)
        assert torch.allclose(found.activations[name].sums, wanted, rtol=1e-4, atol=1e-4)


def test_texts_from_here_and_there(torchgguf, tmp_path):
    """Several texts are read one after the other, standard input among them; matrices given are added."""
    text, model, golden = TEXT.read_text(), GOLDENS / "gpt2.gguf", GOLDENS / "gpt2.imatrix.gguf"
    (tmp_path / "a.txt").write_text(text[:1000])
    result = torchgguf(
        *("imatrix", model, "--text", tmp_path / "a.txt", "--text", "-", "--in", golden),
        *("-o", tmp_path / "x.dat", "--ctx-size", CHUNK_SIZE, "--batch-size", 4, "--no-perplexity"),
        input=text[1000:3000],
    )
    assert result.returncode == 0, result.stderr
    assert "perplexity" not in result.stderr
    tokens = encode_texts(AutoTokenizer.from_pretrained(model), [text[:1000], text[1000:3000]])
    alone = collect_importance(AutoModelForCausalLM.from_pretrained(model), tokens, chunk_size=CHUNK_SIZE)
    expected = ImportanceMatrix.merged([load_imatrix(golden), alone])
    found = load_imatrix(tmp_path / "x.dat", CHUNK_SIZE)  # the older format, by the name
    assert (found.chunk_count, found.datasets) == (CHUNKS + alone.chunk_count, ["stdin"])
    for name in expected:
        assert torch.allclose(found.get(name), expected.get(name), rtol=1e-4)


@pytest.mark.parametrize(
    "given, options, golden",
    [
        (["llama.imatrix.gguf", "llama.two.gguf"], [], "llama.merged.gguf"),
        (["qwen2moe.imatrix.dat"], [], "qwen2moe.from_dat.gguf"),
        (["qwen2moe.imatrix.gguf"], ["--format", "dat"], "qwen2moe.imatrix.dat"),
    ],
    ids=["merge", "from dat", "to dat"],
)
def test_merges_and_converts_as_llama_imatrix(torchgguf, tmp_path, given, options, golden):
    matrices = [argument for name in given for argument in ("--in", GOLDENS / name)]
    result = torchgguf("imatrix", *matrices, "-o", tmp_path / "x", *options)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "x").read_bytes() == (GOLDENS / golden).read_bytes()


def test_shows_figures(torchgguf, tmp_path):
    out = tmp_path / "x.gguf"
    result = torchgguf("imatrix", "--in", GOLDENS / "llama.imatrix.gguf", "--statistics", "-o", out)
    assert result.returncode == 0, result.stderr
    rows = {row[0]: row[1:] for row in map(str.split, result.stdout.splitlines()) if "." in row[0]}
    table = FIGURES["models"]["llama"]["statistics"]
    assert len(rows) == len(table)
    for layer, tensor, total, *_, similarity in table:
        row = rows[f"blk.{layer}.{tensor}.weight" if layer != "-" else f"{tensor}.weight"]
        assert float(row[0]) == pytest.approx(float(total), abs=0.01)
        assert float(row[-1]) == pytest.approx(float(similarity), abs=2e-4)
    assert not out.exists()


def test_experts_that_were_never_seen_are_named(torchgguf, tmp_path):
    out = tmp_path / "x.gguf"
    result = torchgguf("imatrix", "--in", GOLDENS / "qwen2moe.two.gguf", "-o", out)
    assert result.returncode == 0
    assert "No token reached some experts in blk.0.ffn_down_exps.weight and 2 more tensors" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals differ elsewhere")
def test_ctrl_c_keeps_what_was_read(tmp_path):
    """And what is saved on the way is a whole file."""
    out = tmp_path / "x.gguf"
    long = tmp_path / "long.txt"
    long.write_text(50 * TEXT.read_text())
    arguments = ("imatrix", GOLDENS / "llama.gguf", "--text", long, "-o", out, "-c", 32, "--save-every", 5)
    with subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + TIMEOUT
        while not out.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        early = load_imatrix(out).chunk_count
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert early % 5 == 0
    matrix = load_imatrix(out)
    assert matrix.chunk_count >= early
    assert f"Stopped after {matrix.chunk_count} of " in errors
    assert set(map(int, matrix.activations["blk.0.ffn_up.weight"].counts)) == {32 * matrix.chunk_count}


# Many command lines in one process: what takes time is to import torch.
RUN_ALL = """
import io, json, sys
from torchgguf.cli import main
results = []
for arguments in json.load(sys.stdin):
    sys.stderr = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stdin = io.TextIOWrapper(io.BytesIO())
    code = main(["imatrix", *arguments])
    sys.stderr.seek(0)
    results.append([code, sys.stderr.read()])
print(json.dumps(results))
"""


def test_what_cannot_be(tmp_path, tmp_path_factory):
    given = tmp_path_factory.mktemp("given")
    model, text = (str(shutil.copy(path, given)) for path in (GOLDENS / "gpt2.gguf", TEXT))
    before = [Path(each).read_bytes() for each in (model, text)]
    wrong = [
        ([], 2, "requires a model and a text, or matrices"),
        ([model], 2, "FILE and --text must be used together"),
        (["--text", text], 2, "FILE and --text must be used together"),
        ([model, "--text", text, "-c", "8"], 2, "--ctx-size"),
        ([model, "--text", "missing.txt"], 1, "missing.txt: No such file"),
        ([model, "--text", model], 1, "is not a UTF-8 text: byte"),
        ([model, "--text", "-"], 1, "a chunk has 512 tokens, but the text has only 0"),
        ([model, "--text", text, "-c", "64"], 1, "the context of the model is 32"),
        # Refused before the model is looked for.
        (["missing.gguf", "--text", text, "-o", "nowhere/x.gguf"], 1, "nowhere: No such file or directory"),
        (["missing.gguf", "--text", text, "-o", "."], 1, "only a regular file can be replaced"),
        # Only a matrix is replaced by one.
        (
            [model, "--text", text, "-o", model],
            1,
            "is not an importance matrix: general.type must be 'imatrix', got 'model'",
        ),
        ([model, "--text", text, "-o", text], 1, "It is not replaced: name another output file (--output)"),
        (
            ["--in", model, "-o", "x.gguf"],
            1,
            "is not an importance matrix: general.type must be 'imatrix', got 'model'",
        ),
        (["--in", text, "-o", "x.gguf"], 1, "is not an importance matrix, neither as GGUF nor"),
        (["missing.gguf", "--text", text], 1, "missing.gguf"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps([arguments for arguments, *_ in wrong]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    for (arguments, code, said), (returned, errors) in zip(wrong, json.loads(done.stdout), strict=True):
        assert returned == code, arguments
        assert re.fullmatch(r"error: .*\n", errors), errors
        assert said in errors
    assert not list(tmp_path.iterdir())
    assert [Path(each).read_bytes() for each in (model, text)] == before
