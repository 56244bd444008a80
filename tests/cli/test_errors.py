"""What goes wrong is said in one line, with an exit code."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT
from tests.support import SMOLLM2


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """Files that are no models."""
    folder = tmp_path_factory.mktemp("broken")
    with SMOLLM2.open("rb") as whole:
        (folder / "header.gguf").write_bytes(whole.read(100_000))
        whole.seek(0)
        (folder / "tensors.gguf").write_bytes(whole.read(50_000_000))
    (folder / "text.gguf").write_text("This is no model.\n")
    (folder / "empty.gguf").touch()
    return folder


@pytest.mark.parametrize(
    "command, name",
    [
        *(("info", name) for name in ("header", "tensors", "text", "empty", "missing")),
        *((command, name) for command in ("run", "chat") for name in ("tensors", "missing")),
    ],
)
def test_a_file_that_is_no_model(torchgguf, broken, command, name):
    file = broken / f"{name}.gguf"
    result = torchgguf(command, file, *(["Hello"] if command == "run" else []))
    assert result.returncode == 1
    assert re.fullmatch(rf"error: .*{re.escape(str(file))}.*\n", result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["run", SMOLLM2, "x", "--tempurature", "1"], "--tempurature"),
        (["run", SMOLLM2, "x", "--temperature", "hot"], "--temperature"),
        (["run", SMOLLM2, "x", "--temperature", "-1"], "temperature"),
        (["run", SMOLLM2, "x", "--dtype", "float12"], "float12"),
        (["run", SMOLLM2, "x", "--temperature", "nan"], "temperature"),
        (["run", SMOLLM2, "x", "--repetition-penalty", "0"], "repetition_penalty"),
        (["run", SMOLLM2, "x", "--stop", ""], "stop"),
        (["run", SMOLLM2, "x", "--seed", str(2**70)], "seed"),
        (["run", SMOLLM2, "x", "--raw", "--system", "y"], "--system"),
        (["run", SMOLLM2, ""], "prompt is empty"),
        (["run"], "FILE"),
        (["infos"], "infos"),
    ],
    ids=lambda value: " ".join(map(str, value[3:] or value[:1])) if isinstance(value, list) else "",
)
def test_wrong_usage(torchgguf, arguments, said):
    result = torchgguf(*arguments)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*\n", result.stderr)
    assert said in result.stderr


@pytest.mark.parametrize("where", ["before", "after"])
def test_debug_shows_the_traceback(torchgguf, broken, where):
    arguments = ["info", broken / "text.gguf"]
    result = torchgguf(*(["--debug", *arguments] if where == "before" else [*arguments, "--debug"]))
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "GGUFError" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes break differently elsewhere")
@pytest.mark.parametrize(
    "arguments",
    [
        ["info", SMOLLM2, "--json"],
        pytest.param(["run", SMOLLM2, "--raw", "Once upon a time", "-n", "200"], marks=pytest.mark.slow),
    ],
    ids=["info", "run"],
)
def test_a_reader_that_leaves_early(arguments):
    command = [*COMMAND, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(TIMEOUT) == 0


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
@pytest.mark.parametrize("file, code", [(SMOLLM2, 0), ("missing.gguf", 1)], ids=["good", "missing"])
def test_closed_streams_do_no_harm(closed, file, code):
    command = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "info", file]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == code
    assert "general.architecture" in result.stdout if code == 0 and closed != ">&-" else not result.stdout
    assert result.stderr == (
        "" if code == 0 or closed == "2>&-" else "error: there is no file missing.gguf\n"
    )


def test_a_wrong_instruction_set_is_one_line():
    """The native part refuses it when it is imported, by any command that needs it."""
    command = [*COMMAND, "run", str(SMOLLM2), "hi"]
    result = subprocess.run(
        command,
        env=os.environ | {"TORCHGGUF_ISA": "abacus"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: TORCHGGUF_ISA must be one of scalar")
    assert result.stderr.endswith("got 'abacus'\n")
    assert result.stderr.count("\n") == 1
