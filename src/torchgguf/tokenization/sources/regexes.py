"""Regular expressions of files, looked at before a text is searched for them: some take for ever.

The library stops a match that has gone back ten million times, at one place of the text. It does so at each
place anew, so an expression that goes back by the square of a text's length takes minutes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.kinds.pre_tokenizers import PRE_TOKENIZERS

_LONGEST = 1 << 13  # characters of an expression
_SECONDS = 1  # that trying one may take
# A class, however deep, an escape, the head of a group, a quantifier or a character.
_CLASS = r"\[(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\])*\])*\]"
_TOKENS = re.compile(rf"{_CLASS}|\\[pP]\{{[^}}]*\}}|\\.|\((?:\?[a-z]*[:=!>]|)|\{{\d*,?\d*\}}|.", re.DOTALL)
_GOES_BACK = "gk123456789"  # calls of groups, and what they have matched
_MOST_OPTIONAL = 8
# Searches texts of several kinds for an expression, with limits on itself.
_TRY = f"""
import sys
from tokenizers import Regex, pre_tokenizers
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
except ImportError:
    pass
pattern = sys.stdin.buffer.read().decode()
split = pre_tokenizers.Split(Regex(pattern), "isolated")
own = sorted(set(pattern))
words = ["aB", "a ", "a1", ". ", "\\r\\n ", "it's 42, is it? "]
parts = [*own[-50:], "a", "A", "1", " ", "\\n", ".", "\\u4e00", *words]
for size in (8, 64, 2048):
    for part in parts:
        for end in ("\\0", "\\n" + "".join(own) + "\\0"):
            split.pre_tokenize_str(part * (size // len(part)) + end)
"""


def check_regex(name: str, pattern: str) -> None:
    """Check that a text can be searched for a regular expression in bounded time.

    The expressions of known rules can be; others if they have at most one part of unlimited length, or none
    that repeats another such part. What else there is is tried on texts, in a process of its own.

    Args:
        name: the file that states it.
        pattern: the expression, in the syntax of Oniguruma.

    Raises:
        TokenizerError: it takes too long, or might.
    """
    if len(pattern) > _LONGEST:
        raise TokenizerError(f"{name}: a regular expression has {len(pattern)} characters, over {_LONGEST}")
    if not (pattern in _known() or _goes_straight(pattern) or _is_fast(pattern)):
        raise TokenizerError(
            f"{name}: searching texts for the regular expression {pattern[:80]!r} takes too long"
        )


@cache
def _known() -> frozenset[str]:
    return frozenset(pattern for rule in PRE_TOKENIZERS.values() for pattern in rule.splits)


def _goes_straight(pattern: str) -> bool:
    """Return whether each alternative has at most one part of unlimited length, and repeats no group."""
    repeats = optional = depth = 0
    after = ""
    for token in _TOKENS.findall(pattern):
        if token[0] in "*+{":
            if after in ("*", "+"):  # lazy, or possessive
                continue
            if after == ")":
                return False
            repeats += 1
        elif token == "?" and after not in ("*", "+", "?", "}"):
            optional += 1
        elif token == ")" or token[0] == "(":
            depth += 1 if token[0] == "(" else -1
        elif token == "|" and depth == 0:
            repeats = optional = 0
        elif token[0] == "\\" and token[1] in _GOES_BACK:
            return False
        if repeats > 1 or optional > _MOST_OPTIONAL:
            return False
        after = token[-1]
    return True


def _is_fast(pattern: str) -> bool:
    """Return whether texts of several kinds are searched in time; False if that could not be tried."""
    command = [sys.executable, "-I", "-c", _TRY]
    try:
        return not subprocess.run(
            command, input=pattern.encode(), capture_output=True, timeout=5 * _SECONDS, check=False
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return False
