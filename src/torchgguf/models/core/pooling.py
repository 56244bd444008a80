"""What a GGUF file states about the vectors of texts: how they are made from the states of tokens."""

from collections.abc import Mapping
from typing import Any

# The names, by the numbers in files (llama.cpp's `llama_pooling_type`). The last scores pairs of texts.
POOLING_NAMES = ("none", "mean", "cls", "last", "rank")
POOLING_KEY = "pooling_type"


def stated_pooling(metadata: Mapping[str, Any]) -> str | None:
    """Return the name that the metadata of a file state, or None if they state none of the known numbers."""
    number = metadata.get(f"{metadata.get('general.architecture')}.{POOLING_KEY}")
    return POOLING_NAMES[number] if type(number) is int and number in range(len(POOLING_NAMES)) else None
