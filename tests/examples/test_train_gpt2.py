"""examples/train_gpt2.py, with a model so small that it is trained in seconds."""

import ast
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests.support import ROOT, VOCABS

VOCABULARY = VOCABS / "ggml-vocab-gpt-2.gguf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VOCABULARY.exists(), reason="GPT-2's vocabulary is not there: ../shared/vocabs"),
]
SMALL = {"layers": 1, "heads": 2, "width": 32, "length": 32, "batch-size": 4, "learning-rate": 0.01}


def command(out: Path, **options: object) -> list[str]:
    stated = {**SMALL, "tokenizer": VOCABULARY, "out": out, **options}
    script = ROOT / "examples" / "train_gpt2.py"
    return [sys.executable, str(script), *(f"--{name}={value}" for name, value in stated.items())]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """The folder that the example has written, and what it has said."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(command(folder, steps=16), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def continuation(said: str, speaker: str) -> tuple[str, str]:
    """The prompt and what was said after it."""
    (line,) = re.findall(rf"^{re.escape(speaker)}: (.*)$", said, re.MULTILINE)
    prompt, text = line.split(" + ")
    return ast.literal_eval(prompt), ast.literal_eval(text)


def test_the_loss_falls_from_that_of_guessing(trained):
    first, last, held_out = map(
        float, re.search(r"loss: ([\d.]+) -> ([\d.]+), held-out text: ([\d.]+)", trained[1]).groups()
    )
    assert first == pytest.approx(math.log(50257), abs=0.1)
    assert max(last, held_out) < first - 1


def test_files(trained):
    folder = trained[0]
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("gpt2.gguf", "loss.png"),
    }
    assert (folder / "loss.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_transformers_and_llama_cpp_go_on_as_it_does(trained):
    folder, said = trained
    prompt, text = continuation(said, "torchgguf")
    assert continuation(said, "llama.cpp") == (prompt, text)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer(prompt, return_tensors="pt")
    new = SMALL["length"] - inputs.input_ids.shape[1]
    output = model.generate(**inputs, max_new_tokens=new, do_sample=False)[0, -new:]
    assert tokenizer.decode(output, skip_special_tokens=True) == text


def test_an_interrupted_training_keeps_what_was_learnt(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, steps=10000), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    read = ""
    while "held_out=" not in read and process.poll() is None:  # the bar has shown the end of a step
        read += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert re.search(r"^ended after [1-9]\d* steps$", said, re.MULTILINE)
    assert (tmp_path / "gpt2.gguf").exists() and (tmp_path / "loss.png").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "argument --steps: invalid positive value: '0'"),
        ({"heads": 3}, "--width must be a multiple of --heads 3, got 32"),
        ({"tokenizer": "no-such.gguf"}, "no-such.gguf"),
        ({"length": 30000}, "too few for windows of 30000"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path, options, complaint):
    done = subprocess.run(command(tmp_path, **options), capture_output=True, text=True, timeout=300)
    assert done.returncode in (1, 2)
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
