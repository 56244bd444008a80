"""What the Makefile installs before the package."""

import subprocess
import sys

from packaging.requirements import Requirement

from tests.support import ROOT


def names(*extras: str) -> set[str]:
    """The packages that the script prints."""
    command = [sys.executable, ROOT / "scripts" / "requirements.py", *extras]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {Requirement(line).name for line in out.splitlines()}


def test_build_and_run_need_no_development_tools() -> None:
    wanted = names()
    assert {"gguf", "tokenizers", "nanobind", "scikit-build-core"} <= wanted
    assert not wanted & {"pytest", "transformers", "xllamacpp"}


def test_torch_is_never_chosen_anew() -> None:
    assert "torch" not in names("test", "dev")
    assert {"pytest", "transformers"} <= names("test", "dev")
