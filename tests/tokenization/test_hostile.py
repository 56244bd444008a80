"""Files meant to do harm: each is one error within bounds of time and memory, and no process dies."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.tokenization import hostile
from tests.tokenization.test_malformed import SPM
from torchgguf.tokenization import AutoTokenizer, ChatTemplateError, Tokenizer, TokenizerError
from torchgguf.tokenization.chat.rendering import render
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS
from torchgguf.tokenization.sources.regexes import check_regex

HARMLESS = {  # what the library bounds itself, or what torchgguf leaves out
    "tokenizer.json: a token of nothing",
    "tokenizer.json: padding without end",
    "GGUF: a score that is no number",
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    command = [sys.executable, "-m", "tests.tokenization.hostile", folder]
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return {name: row for name, *row in map(json.loads, run.stdout.splitlines())}


@pytest.mark.parametrize(
    "name",
    [
        *(f"tokenizer.json: {name}" for name in hostile.FILES),
        *(f"GGUF: {name}" for name in hostile.METADATA),
    ],
)
def test_a_tokenizer_meant_to_do_harm(name: str, reports: dict[str, list[Any]]) -> None:
    result, seconds, memory = reports[name]
    assert result == ("fine" if name in HARMLESS else "refused")
    assert seconds < 1
    assert memory < 50


def test_known_expressions_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    for rule in PRE_TOKENIZERS.values():
        for pattern in rule.splits:
            check_regex("tokenizer.json", pattern)
    for pattern in (r"\s+", r" {2,}", r"[[:alpha:]&&[^a]]+|\p{N}{1,3}", r"(?i:'s|'t)|[^\r\n\p{L}]?\p{L}+"):
        check_regex("tokenizer.json", pattern)


@pytest.mark.parametrize("pattern", [r"\p{L}+(?:'\p{L}+)*|\s+", r"[^\r\n]?\p{Lu}*\p{Ll}+|\d+", "(a|b){3}"])
def test_unknown_expressions_that_are_fast(pattern: str) -> None:
    check_regex("tokenizer.json", pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|a)*Z", "a*a*a*Z", r"(.+)+\0", "x" * 10_000])
def test_expressions_that_are_slow(pattern: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: .* regular expression"):
        check_regex("tokenizer.json", pattern)


def test_half_of_a_surrogate_pair_in_a_config(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(hostile.FILES["padding without end"]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "\ud800"}))
    with pytest.raises(TokenizerError, match=r"^tokenizer_config\.json is not Unicode"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "\U0001f600"}))
    assert AutoTokenizer.from_pretrained(tmp_path).bos_token == "\U0001f600"


def _cycle() -> dict[str, Any]:
    message: dict[str, Any] = {"role": "user"}
    return message | {"content": [message.setdefault("content", message)]}


def _deep() -> dict[str, Any]:
    content: Any = "x"
    for _ in range(100_000):
        content = [content]
    return {"role": "user", "content": content}


@pytest.mark.parametrize("message", [_cycle(), _deep()], ids=["a cycle", "deep"])
@pytest.mark.parametrize("argument", ["conversation", "tools", "documents", "variable"])
def test_messages_without_end(message: dict[str, Any], argument: str) -> None:
    options: dict[str, Any] = {"conversation": [{"role": "user", "content": "x"}], argument: [message]}
    with pytest.raises(ChatTemplateError, match="over 200 levels deep, or hold themselves"):
        Tokenizer.from_gguf(SPM).apply_chat_template(chat_template="{{ messages }}", **options)


@pytest.mark.parametrize(
    "value",
    ["cycler(1)", "joiner()", "dict", "range", "'a'.upper", "{}.keys", "[1]|map('upper')", "[1]|reverse"],
)
@pytest.mark.parametrize(
    "template",
    [
        "{{ V }}",
        "{{ [[V]] }}",
        "{{ {'a': V}.items() }}",
        "{{ {V: 1}|string }}",
        "{{ (V) ~ '' }}",
        "{{ '%s' % [V] }}",
        "{{ '{}'.format([V]) }}",
        "{{ [V]|join }}",
        "{% set x %}{{ V }}{% endset %}{{ x }}",
        "{{ raise_exception(V) }}",
    ],
)
def test_templates_write_no_addresses(template: str, value: str) -> None:
    with pytest.raises(ChatTemplateError, match="failed: ") as caught:
        render(template.replace("V", f"({value})"), {})
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ missing }}{{ none }}{{ 1.5 }}{{ range(3) }}{{ {'a': 1}.items() }}", "None1.5range(0, 3)"),
        ("{{ namespace(a=1) }}{% macro f() %}{% endmacro %}{{ f }}", "<namespace><Macro 'f'>"),
        ("{% for x in [1] %}{{ loop }}{% endfor %}", "<LoopContext 1/1>"),
    ],
)
def test_what_templates_may_write(template: str, text: str) -> None:
    assert render(template, {}).startswith(text)
