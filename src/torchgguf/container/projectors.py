"""Files with the part of a model for images or sound (mmproj), which contain no model of text."""

from collections.abc import Mapping
from typing import Any

_ARCHITECTURE = "clip"  # of all of them


def explain_projector(metadata: Mapping[str, Any]) -> str | None:
    """Return what a file is and what to load instead, or None if it is not a projector."""
    if metadata.get("general.architecture") != _ARCHITECTURE:
        return None
    return (
        "the file is a projector of images or sound (mmproj), not a model: "
        "load the other GGUF file of the model, which contains its text part"
    )
