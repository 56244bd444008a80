"""Ctrl-C at any time ends a command with code 130, without a traceback, and without parts of files."""

import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import TIMEOUT
from tests.conversion.folders import publish
from tests.support import SMOLLM2

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals differ elsewhere")


def interrupted_after(module, *arguments, cwd=None):
    """Interrupt a command when it has imported a module; return its code, and what else it said."""
    command = [sys.executable, "-X", "importtime", "-m", "torchgguf", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    ) as process:
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        code = process.wait(TIMEOUT)
    return code, [line for line in rest.splitlines() if not line.startswith("import time:")]


@pytest.mark.parametrize(
    "module",
    ["torchgguf.cli.terminal", "typer.main", "numpy._core.multiarray", "numpy", "torch.utils", "torch"],
)
def test_while_modules_are_imported(module):
    code, said = interrupted_after(module, "run", SMOLLM2, "hi", "-n", "4000")
    assert (code, said) == (130, [])


@pytest.mark.parametrize("module", ["torchgguf.models.io.assembling", "torchgguf.conversion.from_checkpoint"])
def test_a_conversion_leaves_nothing(tmp_path, module):
    folder = publish("llama", tmp_path / "hf")
    (tmp_path / "out").mkdir()
    code, said = interrupted_after(module, "convert", folder, "out/x.gguf", cwd=tmp_path)
    assert (code, said) == (130, [])
    assert not [*(tmp_path / "out").iterdir()]


def test_background_jobs_of_a_shell_ignore_it():
    """A shell ignores the signal for them, and so does the command."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += "import torchgguf.__main__ as command, sys; sys.argv[1:] = ['--version']; command.run_process()\n"
    code += "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL)
