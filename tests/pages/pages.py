"""The two pages of documentation that the package makes true, and their snippets."""

import re
from pathlib import Path

import pytest
import torch

from tests.support import SHARED

GGUF, GPT2 = (SHARED / "seeds" / name for name in ("gguf.md", "gpt2.md"))
needs_pages = pytest.mark.skipif(not GPT2.exists(), reason="the pages are not there: ../shared/seeds")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def snippets(page: Path, language: str = r"\w*") -> list[str]:
    """The code blocks of a page, in their order; `language` is a pattern."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def snippet(page: Path, *words: str) -> str:
    """The one code block that has these words, as it stands."""
    (found,) = [code for code in snippets(page) if all(word in code for word in words)]
    return found


def listed(page: Path, anchor: str) -> list[str]:
    """The items of the list under a heading."""
    (section,) = re.findall(
        rf"^#+ .*\[\[{anchor}\]\]\n(.*?)(?=^#|\Z)", page.read_text(), re.DOTALL | re.MULTILINE
    )
    return re.findall(r"^- (.*)$", section, re.MULTILINE)


def documented(page: Path) -> dict[str, list[str]]:
    """The names that a page has documentation of, and which of their methods."""
    found = re.findall(r"^\[\[autodoc\]\] (\S+)\n((?:- \w+\n?)*)", page.read_text(), re.MULTILINE)
    return {name: re.findall(r"- (\w+)", methods) for name, methods in found}


def ours(code: str) -> str:
    """A snippet with the import replaced and, where there is no CUDA, tensors moved to the CPU instead."""
    assert "from transformers import" in code
    return on_this_machine(code.replace("from transformers import", "from torchgguf import"))


def theirs(code: str) -> str:
    """The snippet itself; transformers does not run on the CPU where `device=0` is asked for."""
    return on_this_machine(code).replace("device=0", f'device="{DEVICE}"')


def on_this_machine(code: str) -> str:
    """Code that moves tensors to CUDA only where there is one."""
    return code.replace('.to("cuda")', f'.to("{DEVICE}")')
