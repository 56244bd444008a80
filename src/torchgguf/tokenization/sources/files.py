"""The files of a tokenizer in a folder or a repository, in Hugging Face's layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

from torchgguf.hub import HubOptions, find_file, find_folder
from torchgguf.tokenization.errors import TokenizerError

PIPELINE = "tokenizer.json"
PIECES, _OLDER_PIECES = "tokenizer.model", "spiece.model"
VOCAB, MERGES = "vocab.json", "merges.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_SPECIAL, _ADDED, _MODEL_CONFIG = "special_tokens_map.json", "added_tokens.json", "config.json"


@dataclass(frozen=True)
class TokenizerFiles:
    """The contents of the files, each part empty or None if its file is missing.

    Attributes:
        pipeline: tokenizer.json.
        pieces: tokenizer.model, or spiece.model as T5 calls it.
        vocab: the path of byte-level BPE's vocab.json.
        merges: the path of its merges.txt.
        config: tokenizer_config.json.
        special: special_tokens_map.json.
        added: added_tokens.json, the ids by token.
        model: the model's config.json.
        templates: the chat templates by name.
    """

    pipeline: str | None = None
    pieces: bytes | None = None
    vocab: Path | None = None
    merges: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    special: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)


def find_tokenizer_files(place: Any, subfolder: str = "", **options: Unpack[HubOptions]) -> TokenizerFiles:
    """Read the files of a tokenizer.

    Args:
        place: a folder, or the name of a repository.
        subfolder: the folder inside it that has the files.
        options: how to fetch them.

    Raises:
        FileNotFoundError: there are no such files. The message names a .gguf file that is there instead.
        TokenizerError: a file is invalid.
        PermissionError, ConnectionError, ValueError: as `find_file` raises them.
    """
    folder = _find(place, subfolder, _NEW, options)
    if not any((folder / name).is_file() for name in (PIPELINE, PIECES, _OLDER_PIECES)):
        folder = _find(place, subfolder, _OLD, options)  # larger than all others, and rarely needed
        if not (folder / VOCAB).is_file():
            if Path(place).exists():
                raise FileNotFoundError(_what_is_missing(folder))
            find_file(place, *_within(subfolder, (PIPELINE, PIECES, VOCAB)), **options)
    files = {name: folder / name for name in (*_NEW, *_OLD) if (folder / name).is_file()}

    pieces = files.get(PIECES, files.get(_OLDER_PIECES))
    config = _object(files.get(TOKENIZER_CONFIG))
    return TokenizerFiles(
        _text(files.get(PIPELINE)),
        pieces.read_bytes() if pieces else None,
        files.get(VOCAB),
        files.get(MERGES),
        config,
        _object(files.get(_SPECIAL)),
        _object(files.get(_ADDED)),
        _object(files.get(_MODEL_CONFIG)),
        _templates(config, files.get(TEMPLATE), folder / MORE_TEMPLATES),
    )


def read_pipeline(file: Path) -> str:
    """Return the text of a tokenizer.json. Raise TokenizerError if it is not UTF-8."""
    return _text(file) or ""


_NEW = (
    PIPELINE,
    PIECES,
    _OLDER_PIECES,
    TOKENIZER_CONFIG,
    _SPECIAL,
    _ADDED,
    _MODEL_CONFIG,
    TEMPLATE,
    f"{MORE_TEMPLATES}/*.jinja",
)
_OLD = (VOCAB, MERGES)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# The patterns of all files that belong to a tokenizer alone.
TOKENIZER_FILES = tuple(name for name in (*_NEW, *_OLD) if name != _MODEL_CONFIG)


def _find(place: Any, subfolder: str, names: Sequence[str], options: HubOptions) -> Path:
    return find_folder(place, _within(subfolder, names), **options) / subfolder


def _within(subfolder: str, names: Sequence[str]) -> list[str]:
    return [str(PurePosixPath(subfolder, name)) for name in names]


def _what_is_missing(folder: Path) -> str:
    if not folder.exists():
        return f"there is no folder {folder}"
    what = f"{folder} holds no tokenizer: {PIPELINE}, {PIECES} and {VOCAB} are all missing"
    if gguf := sorted(path.name for path in folder.glob("*.gguf")):
        name = f"{folder / gguf[0]}, or in Python gguf_file={gguf[0]!r}"
        return f"{what}; to load that of a GGUF file, name the file: {name}"
    return what


def _text(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{file.name} is not UTF-8: {error}") from None


def _object(file: Path | None) -> dict[str, Any]:
    text = _text(file)
    if file is None or text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{file.name} must hold an object, got a {type(value).__name__}")
    if _HALF.search(text):  # perhaps half of a pair, which nothing can write or encode
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(f"{file.name} is not Unicode: {error}") from None
    return value


def _templates(config: Mapping[str, Any], default: Path | None, folder: Path) -> dict[str, str]:
    """Return the templates by name. Files of their own take precedence over the config."""
    templates = {path.stem: _text(path) or "" for path in sorted(folder.glob("*.jinja"))}
    if (text := _text(default)) is not None:
        templates = {"default": text, **templates}
    if templates:
        return templates
    stated = config.get("chat_template")
    try:
        if isinstance(stated, list):
            templates = {row["name"]: row["template"] for row in stated}
        elif stated is not None:
            templates = {"default": stated}
        if all(isinstance(text, str) for pair in templates.items() for text in pair):
            return templates
    except (KeyError, TypeError):
        pass
    raise TokenizerError(
        f"{TOKENIZER_CONFIG}: chat_template must be a string or a list of names and templates"
    )
