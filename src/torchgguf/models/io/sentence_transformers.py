"""The files of sentence-transformers, next to a checkpoint: how vectors of texts are made."""

import json
import logging
import re
from pathlib import Path
from typing import Any

from torchgguf.hub import find_file
from torchgguf.models.io.checkpoint import Checkpoint

_logger = logging.getLogger(__name__)

MODULES, _POOLING = "modules.json", "1_Pooling"
# Fields that choose a pooling, or values of `pooling_mode`, in the order in which they count.
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_NAMES = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_FOLDER = re.compile(r"[\w-][\w.-]*")


def read_pooling(checkpoint: Checkpoint) -> str | None:
    """Return the pooling that the files state, or None if there are no such files.

    A pooling that GGUF files do not support is a warning.
    """
    modules = _read(checkpoint, MODULES)
    if any(isinstance(m, dict) and str(m.get("type", "")).endswith("Dense") for m in modules or ()):
        _logger.warning("%s: layers after the pooling (Dense) are ignored, so vectors are others", checkpoint)
    for module in modules if isinstance(modules, list) else ():
        if not isinstance(module, dict) or not str(module.get("type", "")).endswith("Pooling"):
            continue
        if not _FOLDER.fullmatch(folder := str(module.get("path", ""))):
            continue
        name = f"{folder}/config.json"
        stated = _read(checkpoint, name)
        if isinstance(stated, dict) and (found := _pooling(stated)) is not None:
            return found
        _logger.warning("%s: the pooling of %s is unsupported: pass pooling=", checkpoint, name)
        return None
    return None


def pooling_files(pooling: str | None, size: int, folder: Path) -> dict[str, bytes]:
    """Return the contents of the files that state a pooling, by their names.

    Args:
        pooling: a name in `POOLING_NAMES`, or None. For those that the files do not support there are none.
        size: of a vector.
        folder: where they are to be. There are none if it states a pooling already.
    """
    if pooling not in _MODES.values() or (folder / MODULES).exists():
        return {}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate({"": "Transformer", _POOLING: "Pooling"}.items())
    ]
    modes = {field: name == pooling for field, name in _MODES.items()}
    config = {"word_embedding_dimension": size, **modes}
    texts = {MODULES: modules, f"{_POOLING}/config.json": config}
    return {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in texts.items()}


def _pooling(stated: dict[str, Any]) -> str | None:
    chosen = next((pooling for field, pooling in _MODES.items() if stated.get(field)), None)
    mode = stated.get("pooling_mode")
    return chosen or (_NAMES.get(mode) if isinstance(mode, str) else None)


def _read(checkpoint: Checkpoint, name: str) -> Any:
    """Return the contents of a JSON file, or None if it is missing or invalid."""
    try:
        return json.loads(find_file(checkpoint.place, name, **checkpoint.hub).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
