"""Functions that accept models of this package and of transformers."""

from os import PathLike
from typing import Any

from torchgguf.models.bridge.from_transformers import from_transformers, is_of_transformers
from torchgguf.models.pretrained.model import PreTrainedModel


def save_gguf(model: Any, path: str | PathLike[str], tokenizer: Any = None, **options: Any) -> None:
    """Save a model of this package or of transformers as a GGUF file.

    Weights of a model of transformers are shared, not copied. A model that came from a GGUF file, by
    `PreTrainedModel.to_transformers`, is written with the metadata of that file.

    Args:
        model: the model; of transformers, one of an architecture that is supported here.
        path: the file; it replaces an old one when it is complete.
        tokenizer: of this package or of transformers.
        options: those of `PreTrainedModel.save_gguf`: `quantization`, `imatrix`, `metadata` and others.

    Raises:
        TypeError: the model is neither, or an option is unknown.
        ValueError: the model is unsupported, or as in `PreTrainedModel.save_gguf`.
    """
    if is_of_transformers(model):
        model = from_transformers(model)
    if not isinstance(model, PreTrainedModel):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        hint = ": merge its adapters first" if hasattr(model, "merge_and_unload") else ""
        raise TypeError(f"the model must be one of torchgguf or of transformers, got {kind}{hint}")
    model.save_gguf(path, tokenizer, **options)
