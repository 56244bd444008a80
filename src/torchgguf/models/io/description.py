"""Describe a model in a GGUF file: its name, authors, licence, size and the like.

The values are those of llama.cpp's converter: the `gguf` package reads them from a folder's model card and
configs, and from the name of the folder.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from torchgguf.container import Metadata, TensorSource, ValueType
from torchgguf.container.value_types import ArrayType
from torchgguf.models.core.provenance import Origin
from torchgguf.models.io.card_reading import read_card
from torchgguf.models.io.checkpoint import CONFIG, GENERATION_CONFIG
from torchgguf.models.io.limits import CheckpointError, read_json

_logger = logging.getLogger(__name__)

# Fields of a model card, and the keys that `describe` writes from them. `general.base_model.0.*` and
# `general.dataset.0.*` become lists in the card.
_IN_CARD = {
    "license": "general.license",
    "license_name": "general.license.name",
    "license_link": "general.license.link",
    "language": "general.languages",
    "tags": "general.tags",
    **{
        f"model_{key}": f"general.{key}"
        for key in ("name", "author", "version", "organization", "description", "finetune", "basename")
    },
    "model_size_label": "general.size_label",
    **{f"model_{key}": f"general.source.{key}" for key in ("url", "doi", "uuid", "repo_url")},
}
_SOURCES_IN_CARD = {"base_model": "base_model_sources", "dataset": "dataset_sources"}
# Sampling options of a file, and the fields of generation_config.json that contain them.
_SAMPLING = {
    **{
        name: (name,)
        for name in (
            "sequence",
            "top_k",
            "top_p",
            "min_p",
            "xtc_probability",
            "xtc_threshold",
            "penalty_last_n",
            "mirostat",
            "mirostat_tau",
            "mirostat_eta",
        )
    },
    "temp": ("temperature",),
    "penalty_repeat": ("penalty_repeat", "repetition_penalty"),
}
_LARGEST = float(np.finfo(np.float32).max)
_SOURCE = re.compile(r"general\.(base_model|dataset)\.(\d{1,9})\.(\w+)")


def describe(architecture: str, origin: Origin | None, tensors: Mapping[str, TensorSource]) -> Metadata:
    """Return the keys `general.*` of a model.

    Args:
        architecture: the value of `general.architecture`.
        origin: the checkpoint that it comes from, if any.
        tensors: of the file; they are counted.
    """
    writer = gguf.GGUFWriter(None, architecture)  # it writes no file; its key-value pairs are used
    for name, source in tensors.items():
        writer.add_tensor_info(name, source.shape, np.dtype(np.float32), 0)
    total, *parts = writer.get_total_parameter_count()
    about = gguf.Metadata()
    if origin is not None and origin.folder.is_dir():
        about = _about(origin, total)
    if about.name is None and origin is not None:
        about.name = origin.name
    if about.size_label is None:
        about.size_label = gguf.size_label(total, *parts)
    writer.add_type(gguf.GGUFType.MODEL)
    if about.name is not None:
        about.set_gguf_meta_model(writer)
    else:
        writer.add_size_label(about.size_label)
    metadata = Metadata()
    for key, stated in writer.kv_data[0].items():
        kind = ValueType(stated.type.value)
        if key.startswith("general.sampling."):
            value = _whole_or_number(stated.value, kind)
            if value is None:
                place = f"{'' if origin is None else origin.folder}/generation_config.json"
                _logger.warning("%s: %s is left out: %r is no %s", place, key, stated.value, kind.name)
                continue
            stated = replace(stated, value=value)
        if stated.sub_type is not None:
            metadata.set(key, stated.value, ArrayType(ValueType(stated.sub_type.value)))
        else:
            metadata.set(key, stated.value, None if kind is ValueType.ARRAY else kind)
    return metadata


def _whole_or_number(value: Any, kind: ValueType) -> str | float | None:
    """Return a value of generation_config.json in its type, or None, if the type does not represent it."""
    if kind is ValueType.STRING:
        return value if isinstance(value, str) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if kind is ValueType.INT32:
        is_whole = -(2**31) <= value < 2**31 and value == int(value)
        return int(value) if is_whole else None
    return value if abs(value) <= _LARGEST else None  # NaN is not, either


def model_card(metadata: Mapping[str, Any]) -> str | None:
    """Return a model card from which `describe` reads these metadata, or None if they describe nothing."""
    from huggingface_hub import CardData  # importing it is slow, and only written folders need it

    stated: dict[str, Any] = {
        field: metadata[key] for field, key in _IN_CARD.items() if _is_text(metadata.get(key))
    }
    for key, value in metadata.items():
        if (source := _SOURCE.fullmatch(key)) is not None and isinstance(value, str):
            kind, number, field = source.groups()
            stated.setdefault(_SOURCES_IN_CARD[kind], {}).setdefault(int(number), {})[field] = value
    for field in stated.keys() & {*_SOURCES_IN_CARD.values()}:
        stated[field] = [source for _, source in sorted(stated[field].items())]
    if not stated:
        return None
    title = " ".join(str(stated.get("model_name", "Model")).split())
    text = f"# {title}\n\n{stated.get('model_description', '')}".strip()
    return f"---\n{CardData(**stated).to_yaml()}\n---\n\n{text}\n"


def _is_text(value: object) -> bool:
    """Return whether a value is a text, or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(each, str) for each in values)


def _about(origin: Origin, total: int) -> gguf.Metadata:
    """Return what a checkpoint's card, configs and name state of it, as llama.cpp's converter does."""
    about = gguf.Metadata.apply_metadata_heuristic(
        gguf.Metadata(),
        read_card(origin.folder),
        _name_in_config(origin.folder),
        Path(origin.name),  # only its last part is read
        total,
    )
    how = _json(origin.folder / GENERATION_CONFIG)
    for field, names in _SAMPLING.items():
        setattr(about, f"sampling_{field}", next((how[name] for name in names if name in how), None))
    return about


def _name_in_config(folder: Path) -> dict[str, str]:
    """Return the field of config.json that may contain the name of the model, if it is a text."""
    name = _json(folder / CONFIG).get("_name_or_path")
    return {"_name_or_path": name} if isinstance(name, str) else {}


def _json(path: Path) -> dict[str, Any]:
    """Return the fields of a JSON file; nothing if it is missing or invalid, as in llama.cpp's converter."""
    try:
        return read_json(path)
    except (OSError, CheckpointError):
        return {}
