"""What a GGUF file says of a model besides how to run it: its name, authors, licence, size and the like.

The values are those that llama.cpp's converter states: the `gguf` package finds them in a folder's model card
and configs, and in the name of the folder.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
from huggingface_hub import CardData

from torchgguf.container import Metadata, TensorSource, ValueType
from torchgguf.container.value_types import ArrayType
from torchgguf.models.core.provenance import Origin

logger = logging.getLogger(__name__)

MODEL_CARD = "README.md"

# Where `describe` finds in a model card what a file states. What it was made from, `general.base_model.0.*`
# and `general.dataset.0.*`, becomes a list there.
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
_SOURCE = re.compile(r"general\.(base_model|dataset)\.(\d{1,9})\.(\w+)")


def describe(architecture: str, origin: Origin | None, tensors: Mapping[str, TensorSource]) -> Metadata:
    """Return the keys `general.*` of a model that comes from a Hugging Face checkpoint, or from none."""
    writer = gguf.GGUFWriter(None, architecture)  # it writes no file: its memory is what is asked for
    for name, source in tensors.items():
        writer.add_tensor_info(name, source.shape, np.dtype(np.float32), 0)
    total, *parts = writer.get_total_parameter_count()
    with _named_folder(origin) as folder:
        try:
            about = gguf.Metadata.load(model_path=folder, total_params=total)
            if about.sampling_penalty_repeat is None:  # which older versions know by another name only
                how = gguf.Metadata.load_generation_config(folder)
                about.sampling_penalty_repeat = how.get("repetition_penalty")
        except Exception as error:  # a model card is anyone's text, and gguf raises whatever it stumbles over
            said = " ".join(str(error).split())
            logger.warning("what %s says of its model cannot be read, and is left out: %s", folder, said)
            about = gguf.Metadata(name=folder.name if folder else None)
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
        if stated.sub_type is not None:
            metadata.set(key, stated.value, ArrayType(ValueType(stated.sub_type.value)))
        else:
            metadata.set(key, stated.value, None if kind is ValueType.ARRAY else kind)
    return metadata


def model_card(metadata: Mapping[str, Any]) -> str | None:
    """Return a model card of what a file's metadata say, for `describe` to find; None if that is nothing."""
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
    """Tell whether it is a text, or a list of texts."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(each, str) for each in values)


@contextmanager
def _named_folder(origin: Origin | None) -> Iterator[Path | None]:
    """Offer the folder under its name, of which the gguf package makes much."""
    if origin is None or not origin.folder.is_dir():
        yield None
    elif origin.folder.name == origin.name:
        yield origin.folder
    else:
        with TemporaryDirectory() as scratch:
            link = Path(scratch, origin.name)
            link.symlink_to(origin.folder.resolve())  # a relative one would start at the link
            yield link
