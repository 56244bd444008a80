"""Open what is at a place, a GGUF file or a Hugging Face checkpoint, and read the config in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from torchgguf.container import GGUFFile, open_gguf
from torchgguf.hub import HubOptions, find_gguf, names_gguf_file
from torchgguf.models import registry
from torchgguf.models.core.config import Config, floating_dtype
from torchgguf.models.io.checkpoint import CONFIG, Checkpoint, CheckpointError
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.savable import refuse_packed

# Fields of models that also read images that apply to their text parts, too.
_OF_ALL_PARTS = ("dtype", "torch_dtype", "tie_word_embeddings", "quantization_config")
_OF_CHECKPOINTS = (".safetensors", ".bin", ".json")


@contextmanager
def open_source(
    place: str | PathLike[str],
    gguf_file: str | None = None,
    *,
    mmap: bool = True,
    **hub: Unpack[HubOptions],
) -> Iterator[GGUFFile | Checkpoint]:
    """Open the place that `from_pretrained` loads; arguments and errors are those of it."""
    if gguf_file is not None or is_gguf(Path(place)):
        with open_gguf(find_gguf(place, gguf_file, **hub), mmap=mmap) as file:
            yield file
    elif not mmap:
        raise ValueError("mmap=False (disable_mmap=True) is for GGUF files, but this is a checkpoint")
    else:
        yield Checkpoint(place, **hub)


def is_gguf(place: Path) -> bool:
    """Return whether a place is a GGUF file, or a folder with GGUF files and no config.json."""
    if place.is_dir():
        return not (place / CONFIG).exists() and any(path.is_file() for path in place.glob("*.gguf"))
    # Opening any other file as GGUF raises the error that states what it is.
    return names_gguf_file(place) or (place.is_file() and place.suffix not in _OF_CHECKPOINTS)


def load_config(place: str | PathLike[str], gguf_file: str | None, options: LoadOptions) -> Config:
    """Load the config at a place, with the changes in `options`; errors are those of `from_pretrained`."""
    with open_source(place, gguf_file, **options.hub) as source:
        if isinstance(source, Checkpoint):
            config = read_config(source, options)
        else:
            config = registry.architecture_of_file(source).read_config(source, options.ignore_metadata)
            config = config.from_dict(config.to_dict(), **options.changes)
    config.attn_implementation = options.attn_implementation or config.attn_implementation
    if options.dtype not in (None, "auto"):
        config.dtype = floating_dtype(options.dtype)
    return config


def read_config(checkpoint: Checkpoint, options: LoadOptions) -> Config:
    """Read the config of a checkpoint, or the one in `options`, with the changes in `options`.

    Raises:
        CheckpointError: the config is broken, of a quantized model, or of an unsupported model type; or a
            field is invalid.
        ValueError: a field that the options set is invalid.
    """
    if isinstance(options.config, Config):
        values: dict[str, Any] = {
            **options.config.to_dict(),
            "attn_implementation": options.config.attn_implementation,
        }
    else:
        if options.config is not None:
            checkpoint = Checkpoint(options.config, **options.hub)
        values = checkpoint.config()
    if not isinstance(values.get("model_type"), str):
        raise CheckpointError(f"{checkpoint}: the config states no model_type")
    values = _of_text(values)
    model_type: str = values["model_type"]
    try:
        architecture = registry.architecture_of_type(model_type)
        if not isinstance(options.config, Config):
            refuse_packed(values, checkpoint, ("mxfp4",) if architecture.interleaved else ())
            values = {name: value for name, value in values.items() if name != "quantization_config"}
        return architecture.config_class.from_dict(values, **options.changes)
    except ValueError as error:
        if options.changes and _is_valid(values):
            raise  # what the caller set is invalid
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{checkpoint}: {error}") from None


def _of_text(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the text part of a model that also reads images; other configs as they are."""
    kind, text = registry.TEXT_PARTS.get(values["model_type"]), values.get("text_config")
    if kind is None or not isinstance(text, dict):
        return dict(values)
    shared = {name: values[name] for name in _OF_ALL_PARTS if name in values}
    # Its class is that of the text part, with the head that such checkpoints contain.
    names = [registry.architecture_of_type(kind).main_class.__name__]
    return {**shared, **text, "model_type": kind, "architectures": names}


def _is_valid(values: Mapping[str, Any]) -> bool:
    with suppress(ValueError):
        registry.architecture_of_type(values["model_type"]).config_class.from_dict(values)
        return True
    return False
