"""Which instruction sets there are, and how one is chosen."""

import os
import subprocess
import sys

import pytest

_native = pytest.importorskip("torchgguf._native")

PROGRAM = "from torchgguf import _native; print(_native.isa())"


def chosen(name: str | None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TORCHGGUF_ISA"}
    if name is not None:
        environment["TORCHGGUF_ISA"] = name
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)


def test_the_best_one_is_used_if_nobody_chooses():
    assert chosen(None).stdout.split() == _native.isas()[-1:]


def test_portable_code_is_always_there():
    assert _native.isas()[0] == "scalar"


@pytest.mark.parametrize("name", _native.isas())
def test_the_environment_chooses(name):
    assert chosen(name).stdout.split() == [name]


@pytest.mark.parametrize("name", ["", "AVX2", "sse9", "avx512 "])
def test_a_wrong_choice_is_one_line_that_names_the_right_ones(name):
    run = chosen(name)
    choices = ", ".join(_native.isas())
    error = f"ImportError: TORCHGGUF_ISA must be one of {choices} on this CPU, got '{name}'"
    assert run.returncode and run.stderr.splitlines()[-1] == error


def test_one_is_chosen_for_a_while(isa):
    assert _native.isa() == isa
    with pytest.raises(ValueError, match=r"the instruction set must be one of scalar.* got 'mmx'"):
        _native.set_isa("mmx")
    assert _native.isa() == isa
