"""Chat templates in the metadata of a GGUF file: one key for each, and a list of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torchgguf.tokenization.errors import TokenizerError
from torchgguf.tokenization.vocab.values import is_unicode

_KEY = "tokenizer.chat_template"
NAMES_KEY = "tokenizer.chat_templates"


def read_templates(metadata: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the chat templates of a GGUF file by name, and notes about those that are ignored.

    The main template is called "default".

    Raises:
        TokenizerError: a template is not a string.
    """
    templates, notes = {}, []
    for key, source in metadata.items():
        if key == _KEY or key.startswith(_KEY + "."):
            if not isinstance(source, str):
                raise TokenizerError(f"{key} must be a string, got a {type(source).__name__}")
            if is_unicode(source):
                templates[key[len(_KEY) + 1 :] or "default"] = source
            else:
                notes.append(f"{key} is not UTF-8: it is ignored")
    return templates, tuple(notes)


def templates_metadata(templates: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata for chat templates by name.

    Keys replace other characters than letters and digits by "_", as llama.cpp's converter does.
    """
    named = [_key_part(name) for name in templates if name != "default"]
    stated: dict[str, Any] = {_key(name): source for name, source in templates.items()}
    return {**stated, NAMES_KEY: named} if named else stated


def _key(name: str) -> str:
    return _KEY if name == "default" else f"{_KEY}.{_key_part(name)}"


def _key_part(name: str) -> str:
    return re.sub("[^A-Za-z0-9]", "_", name)
