"""Read the fields of a model card that describe a model in a GGUF file.

Anyone writes a card, and no program needs one: what is unusable in it is left out with one warning. The rest
is read as llama.cpp's converter reads it, except that all values stay the texts that the author wrote:
`version: 1.0` is not a number, and `language: no` is Norwegian.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from torchgguf.models.io.limits import list_names

_logger = logging.getLogger(__name__)

MODEL_CARD = "README.md"

# Within these, reading takes less than a second. Lists of benchmarks make some cards 300 KB long.
_MAX_FIELDS = 1 << 20  # bytes
_MAX_VALUES = 150_000

_ABOUT = (
    "name",
    "author",
    "version",
    "organization",
    "description",
    "finetune",
    "basename",
    "size_label",
    "url",
    "doi",
    "uuid",
    "repo_url",
)
# Fields that the `gguf` package reads. A list in some of them is one text with these separators.
_TEXTS = (
    *_ABOUT,
    *(f"model_{name}" for name in _ABOUT),
    "model_creator",
    "model_type",
    "license",
    "license_name",
    "license_link",
)
_SEPARATORS = {"license": ","} | dict.fromkeys(
    ("author", "model_author", "model_creator", "organization", "model_organization"), ", "
)
_LISTS = ("tags", "pipeline_tag", "languages", "language")
_SOURCES = ("base_model", "base_models", "base_model_sources", "datasets", "dataset", "dataset_sources")


class _Unquoted(str):
    """A number, bool or date of YAML, as the author spelled it."""


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


class _TextLoader(_Loader):  # type: ignore[misc]  # yaml has no types
    """Reads scalars as texts, except for nulls."""

    def as_spelled(self, node: yaml.ScalarNode) -> str:
        """Return the text of a scalar."""
        text: str = self.construct_scalar(node)
        # In YAML 1.2 only two words are bools; yes, no, on and off are texts.
        is_text = node.tag == "tag:yaml.org,2002:bool" and text.lower() not in ("true", "false")
        return text if is_text else _Unquoted(text)


for _tag in ("bool", "int", "float", "timestamp", "value"):
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _TextLoader.as_spelled)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the usable fields of the model card in a folder; nothing if there is no card.

    Texts, lists of texts and sources (lists of texts or of dicts of texts) are as `gguf.Metadata` expects.
    """
    path = folder / MODEL_CARD
    try:
        fields = _front_matter(path)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        _logger.warning("the model card %s is invalid and ignored: %s", path, reason)
        return {}
    unusable: list[str] = []
    card = {}
    for names, read in ((_TEXTS, _text_field), (_LISTS, _list_field), (_SOURCES, _source_field)):
        for name in names:
            if name in fields and (fields[name] is not None or read is _source_field):
                card[name] = read(name, fields[name], unusable.append)
    if unusable:
        _logger.warning("%s: ignored what is not a text in the model card: %s", path, list_names(unusable))
    return {name: value for name, value in card.items() if value is not None}


def _front_matter(path: Path) -> dict[str, Any]:
    """Return the YAML between the first line, `---`, and the next such line."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(_MAX_FIELDS + 1)
    # The text after the fields may be in any encoding. Editors on Windows put a mark before it.
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    if lines[:1] != ["---"]:
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    text = "\n".join(lines[1:end]).replace("\t", "  ")  # YAML forbids tabs, which are in real cards
    if (end == len(lines) and len(data) > _MAX_FIELDS) or sum(map(text.count, ",[{\n")) > _MAX_VALUES:
        raise ValueError("its fields are longer than those of any model")
    fields = yaml.load(f"{text}\n", _TextLoader)
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise ValueError(f"it must begin with fields, got {text[:40]!r}")
    return fields


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _text_field(name: str, value: Any, ignore: Callable[[str], None]) -> str | None:
    if _is_text(value):
        return str(value)
    if isinstance(value, list) and name in _SEPARATORS and all(map(_is_text, value)):
        return _SEPARATORS[name].join(value)
    ignore(name)
    return None


def _list_field(name: str, value: Any, ignore: Callable[[str], None]) -> list[str] | None:
    values = value if isinstance(value, list) else [value]
    if not isinstance(value, list) and (isinstance(value, _Unquoted) or not _is_text(value)):
        ignore(name)
        return None
    for index, each in enumerate(values):
        if not _is_text(each):
            ignore(f"{name}[{index}]")
    return [str(each) for each in values if _is_text(each)]


def _source_field(name: str, value: Any, ignore: Callable[[str], None]) -> list[Any]:
    """Return base models or datasets. An unusable one stays as an empty entry, because they are counted."""
    if value is None:
        return []
    if not isinstance(value, list):
        if _is_text(value) and not isinstance(value, _Unquoted):
            return [str(value)]
        ignore(name)
        return []
    sources: list[Any] = []
    for index, each in enumerate(value):
        if isinstance(each, dict):
            usable = {str(key): str(text) for key, text in each.items() if _is_text(key) and _is_text(text)}
            if len(usable) < len(each):
                ignore(f"{name}[{index}]")
            sources.append(usable)
        elif _is_text(each) and not isinstance(each, _Unquoted):
            sources.append(str(each))
        else:
            ignore(f"{name}[{index}]")
            sources.append({})
    return sources
