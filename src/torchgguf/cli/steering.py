"""Apply what changes a model beside its file: adapters and control vectors."""

from collections.abc import Sequence

import typer

from torchgguf.cli.options import parse_factor, parse_layers, split_place
from torchgguf.models import PreTrainedModel


def locate_adapter(file: str) -> str:
    """Return the place of an adapter: a file, a folder or a repository. REPO:FILE is fetched."""
    from torchgguf.hub import find_gguf

    place, gguf_file = split_place(file)
    return place if gguf_file is None else str(find_gguf(place, gguf_file))


def add_adapters(model: PreTrainedModel, texts: Sequence[str]) -> None:
    """Load adapters, each FILE or FILE:FACTOR, and apply all of them."""
    from torchgguf.training.adapters import load_adapter
    from torchgguf.training.lora import set_adapters

    factors: dict[str, float] = {}
    for number, text in enumerate(texts):
        file, factor = parse_factor(text, "--lora")
        load_adapter(model, locate_adapter(file), name := f"lora{number}")
        factors[name] = factor
    set_adapters(model, factors)


def add_control_vectors(model: PreTrainedModel, texts: Sequence[str], layers: str | None) -> None:
    """Add control vectors, each FILE or FILE:FACTOR, after layers in a range."""
    from torchgguf.hub import find_gguf
    from torchgguf.training.control_vectors import add_control_vector, read_control_vector

    if layers is not None and not texts:
        raise typer.BadParameter("requires --control-vector", param_hint="--control-vector-layers")
    chosen = None if layers is None else parse_layers(layers)
    for text in texts:
        file, factor = parse_factor(text, "--control-vector")
        add_control_vector(model, read_control_vector(find_gguf(*split_place(file))), factor, chosen)
