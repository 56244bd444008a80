"""Chat templates rendered by Jinja: the only file beside the sandbox that needs it, loaded at first use."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jinja2 import Template, nodes

from torchgguf.tokenization.chat.budget import limited
from torchgguf.tokenization.chat.sandbox import ChatEnvironment
from torchgguf.tokenization.errors import ChatTemplateError

_LONGEST_REASON = 1000  # characters of a template's own error message

_ENVIRONMENT = ChatEnvironment()


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def render(source: str, variables: Mapping[str, Any], mark: str = "") -> str:
    """Return the text of a template, rendered in the sandbox.

    Args:
        source: the template.
        variables: its variables.
        mark: what to write before and after the text of each `{% generation %}`.

    Raises:
        ChatTemplateError: the template is invalid, refuses its variables, or exceeds its budget.
    """
    try:
        with limited(mark):
            return _compiled(source).render(variables)
    except Exception as error:  # a stranger's program: it may raise anything
        reason = " ".join(str(error)[:_LONGEST_REASON].split()) or type(error).__name__
        raise ChatTemplateError(f"the chat template failed: {reason}") from error


@functools.lru_cache(maxsize=8)
def literal_text(source: str) -> str:
    """Return the text that stands in a template itself, in pieces between zeros."""
    with limited():
        tree = _ENVIRONMENT.parse(source)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    constants = [node.value for node in tree.find_all(nodes.Const)]
    return "\0".join([*texts, *(value for value in constants if isinstance(value, str))])
