"""Read a tokenizer of transformers as one of this package."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torchgguf.tokenization import AutoTokenizer


def is_foreign_tokenizer(tokenizer: object) -> bool:
    """Return whether a value is a tokenizer of transformers; that package is not imported."""
    foreign = not hasattr(tokenizer, "to_gguf")
    return foreign and hasattr(tokenizer, "save_pretrained") and hasattr(tokenizer, "get_vocab")


def own_tokenizer(tokenizer: Any) -> Any:
    """Return a tokenizer of this package with the files of the one given; None stays None.

    Args:
        tokenizer: of this package, which is returned unchanged, or of transformers.

    Raises:
        TypeError: it is neither.
        TokenizerError: its files are unsupported.
    """
    if tokenizer is None or hasattr(tokenizer, "to_gguf"):
        return tokenizer
    if not is_foreign_tokenizer(tokenizer):
        kind = f"{type(tokenizer).__module__}.{type(tokenizer).__name__}"
        raise TypeError(f"tokenizer= must be a tokenizer of torchgguf or of transformers, got {kind}")
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        own = AutoTokenizer.from_pretrained(Path(folder))
    own.name_or_path = tokenizer.name_or_path
    return own
