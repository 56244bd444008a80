"""The fuzzers find what goes wrong, and a short run of them finds nothing."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest
from fuzz.documents import FolderDocument, GGUFDocument
from fuzz.running import Findings, run
from fuzz.targets import CORPUS, TARGETS, put

from tests.support import ROOT

MODEL_TYPES = sorted(path.name.split(".")[0] for path in CORPUS.glob("*.folder.json"))


def test_the_corpus_is_small_and_has_many_architectures():
    files = [path for path in CORPUS.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert {f"{name}.gguf" for name in MODEL_TYPES} < {path.name for path in files}
    assert len(MODEL_TYPES) >= 16


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_unchanged_documents_are_sound(tmp_path, model_type):
    """What is built of a document loads, so that what is refused later is so for its change."""
    document = GGUFDocument.read(CORPUS / f"{model_type}.gguf")
    assert document.build() == (CORPUS / f"{model_type}.gguf").read_bytes()
    TARGETS["model"].load(put(document.build(), tmp_path))
    folder = FolderDocument.read(CORPUS / f"{model_type}.folder.json").build()
    (tmp_path / "folder").mkdir()
    TARGETS["checkpoint"].load(put(folder, tmp_path / "folder"))


def test_an_input_is_a_function_of_its_number():
    assert TARGETS["model"].make(1, 2) == TARGETS["model"].make(1, 2) != TARGETS["model"].make(1, 3)


@pytest.mark.parametrize("name", ["header", "model"])
def test_a_short_run_finds_nothing(tmp_path, name):
    findings = Findings(tmp_path)
    assert run(name, TARGETS[name], 0, 60, findings, most=150) == 150
    assert not findings.kinds, [path.read_text() for path in tmp_path.rglob("reason.txt")]


def _abort(path):
    os.abort()


def _loop(path):
    while True:
        time.sleep(1)


def _fill(path):
    assert b"x" * (400 << 20)  # written to, so that it is resident


def _burn(path):
    start = time.process_time()
    while time.process_time() < start + 1.2:
        pass


HARM = {
    "abort": (_abort, "signal 6"),
    "loop": (_loop, "no end"),
    "memory": (_fill, "memory"),
    "time": (_burn, "slow"),
    "wrong error": (lambda path: {}["key"], "KeyError in test_fuzz.py:<lambda>"),
    "exit": (lambda path: sys.exit(3), "SystemExit in test_fuzz.py:<lambda>"),
}


@pytest.mark.parametrize(("load", "kind"), HARM.values(), ids=HARM)
def test_what_is_found(tmp_path, load, kind):
    """Each kind of harm is found, its input is kept once, and the run goes on."""
    findings = Findings(tmp_path)
    target = replace(TARGETS["header"], load=load)
    assert run("header", target, 7, 60, findings, most=2, patience=0.5 if load is _loop else 20) == 2
    assert findings.kinds == {f"header: {kind}": 2}
    assert (tmp_path / "header-7-0" / "input.gguf").read_bytes() == target.make(7, 0)
    assert kind in (tmp_path / "header-7-0" / "reason.txt").read_text()
    assert not (tmp_path / "header-7-1").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: make fuzz installs it")
def test_coverage_guides_a_run(tmp_path):
    command = [sys.executable, "-m", "fuzz.coverage", "header", "-runs=300", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"DONE +cov: \d{2,}", done.stderr), done.stderr
    assert not [*tmp_path.iterdir()]
