"""What the build makes of the programs that it runs: steps, and the reason in one line if one fails."""

import pytest

from tests.support import ROOT  # noqa: F401  (makes scripts importable)

from build_llama_cpp import BuildError, run  # isort: skip


def shell(*lines: str) -> list[str]:
    return ["sh", "-c", "; ".join(lines)]


def test_steps_are_told_as_ninja_counts_them():
    steps = []
    ninja = shell("echo '-- configuring'", "echo '[3/7] compiling'", "echo '[7/7] linking' >&2")
    run(ninja, lambda *counts: steps.append(counts))
    assert steps == [(3, 7), (7, 7)]


def test_the_first_error_is_the_reason():
    failing = shell("echo '[1/9] compiling'", "echo 'x.c:3: error: no such thing'", "echo 'error'", "exit 1")
    with pytest.raises(BuildError, match=r"^sh failed: x\.c:3: error: no such thing$"):
        run(failing, lambda *_: None)


def test_a_missing_program_is_named():
    with pytest.raises(BuildError, match="no-such-program is not installed; try: pip install cmake ninja"):
        run(["no-such-program"], lambda *_: None)
