"""What the targets of the Makefile run, as make itself says without running it."""

import os
import re
import subprocess

import pytest

from tests.support import ROOT

INNER = {"tools", "models", "oldest"}  # targets of targets


def make(*arguments: str) -> str:
    """Return what make prints."""
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    # An outer make that runs the tests hands on its variables, such as WORKERS=2.
    outer = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "T", "K", "WORKERS", "VENV"}
    env = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_help_lists_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in make("help").splitlines()]
    assert {name for name, _ in lines} == set(phony.split()) - INNER
    assert all(len(text) > 10 for _, text in lines)


def test_the_demo_is_what_make_alone_runs() -> None:
    assert "scripts/demo.py" in make("--dry-run").splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["test"], r"-m pytest *$"),
        (["test", "T=tests/nn"], r"-m pytest +tests/nn$"),
        (["test", "T=tests/nn", "K=rope or alibi"], r"-m pytest +-k 'rope or alibi' +tests/nn$"),
        (["test", "WORKERS=2"], r"^OMP_NUM_THREADS=1 .*-m pytest +-n 2 --dist loadfile +$"),
        (["quick", "K=rope"], r"-n 2 --dist loadfile +-k 'rope' -p tests\.quick *$"),
    ],
)
def test_tests_are_chosen_by_path_and_by_word(arguments: list[str], command: str) -> None:
    assert re.search(command, make("--dry-run", *arguments).splitlines()[-1])


def test_an_update_to_another_torch_still_tries_the_oldest(tmp_path) -> None:
    for name, torch in ("dev", "9.9"), ("oldest", "2.6.0"):
        (tmp_path / f"{name}.lock").write_text(f"torch=={torch}\n")
    printed = make("--dry-run", "update", "TORCH=9.9", f"NEXT={tmp_path}")
    installed = dict(re.findall(r"/(dev|oldest)/bin/python -m pip .* torch==(\S+)$", printed, re.MULTILINE))
    assert installed == {"dev": "9.9", "oldest": "2.6.0"}


def test_a_commit_is_checked_as_lint_checks() -> None:
    """Compares the first two words of each command."""
    config = (ROOT / ".pre-commit-config.yaml").read_text()
    hooks = re.findall(r"entry: (\S+(?: \S+)?)", config)
    printed = make("--dry-run", "lint").splitlines()
    checks = [line.split()[:2] for line in printed if re.match(r"\.venv/bin/(?!.*( -m pip | > ))", line)]
    assert sorted(hooks) == sorted(map(" ".join, checks))


def test_everything_is_installed_at_locked_versions(tmp_path) -> None:
    lines = [
        line for line in make("--dry-run", "lint", f"VENV={tmp_path}").splitlines() if " install " in line
    ]
    assert len(lines) >= 5
    assert all(" -c requirements/dev.lock " in line for line in lines)
