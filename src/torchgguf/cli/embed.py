"""`torchgguf embed`: vectors of texts, as llama-embedding computes them."""

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from torchgguf.cli.options import (
    FILE_HELP,
    DebugOption,
    DeviceOption,
    DTypeOption,
    ThreadsOption,
    split_place,
    wrong_usage,
)
from torchgguf.cli.terminal import note


class Pooling(StrEnum):
    """How one vector is made of a text."""

    auto = "auto"
    mean = "mean"
    cls = "cls"
    last = "last"
    none = "none"


_Model = Annotated[str, typer.Argument(metavar="MODEL", help=FILE_HELP)]
_Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT ...", help="The texts; by default the lines of standard input."),
]
_File = Annotated[
    str | None, typer.Option("--file", metavar="FILE", help="Read the texts from a file, one in each line.")
]
_Pooling = Annotated[
    Pooling,
    typer.Option(
        "--pooling",
        metavar="auto|mean|cls|last|none",
        help="What the vector of a text is: the mean of its tokens' states, the state of its first or last "
        "token, or as the model states; none: a list of vectors, one for each token.",
    ),
]
_NoNormalize = Annotated[
    bool, typer.Option("--no-normalize", help="Keep the length of vectors; by default it is 1.")
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON array of all vectors, not one vector in each line.")
]
_Truncate = Annotated[bool, typer.Option("--truncate", help="Cut off what does not fit into the context.")]
_BatchSize = Annotated[
    int, typer.Option("--batch-size", metavar="N", min=1, help="Texts that are computed together.")
]
_Dequantize = Annotated[
    bool, typer.Option("--dequantize", help="Unpack all weights: more memory, plain torch layers.")
]
_NoMmap = Annotated[
    bool, typer.Option("--no-mmap", help="Read the file into memory: for one that may become shorter.")
]
_Ignored = Annotated[
    list[str] | None,
    typer.Option("--ignore-metadata", metavar="KEY", help="Do not read this unknown key; repeatable."),
]


def embed_command(
    model: _Model,
    texts: _Texts = None,
    file: _File = None,
    pooling: _Pooling = Pooling.auto,
    no_normalize: _NoNormalize = False,
    as_array: _Json = False,
    truncate: _Truncate = False,
    batch_size: _BatchSize = 8,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dtype: DTypeOption = None,
    dequantize: _Dequantize = False,
    no_mmap: _NoMmap = False,
    ignore_metadata: _Ignored = None,
    debug: DebugOption = False,
) -> None:
    """Compute a vector of each text, to compare texts by their meaning.

    Each line of the output is a JSON array of numbers, the vector of one text, in the order of the texts.
    Empty lines of the input are skipped.
    """
    if texts and file is not None:
        raise typer.BadParameter("the texts are arguments already", param_hint="--file")
    lines = texts or (_read_lines(file) if file is not None else _typed_lines())
    if not all(text.strip() for text in texts or ()):
        raise typer.BadParameter("a text is empty", param_hint="TEXT")
    import torch

    from torchgguf.models.io.devices import available_device
    from torchgguf.pipelines import pipeline

    with wrong_usage():
        target = available_device(device or "cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    place, gguf_file = split_place(model)
    worker = pipeline(
        "feature-extraction",
        place,
        gguf_file=gguf_file,
        device=target,
        dtype=None if dtype is None else str(dtype),
        model_kwargs={
            "dequantize": dequantize,
            "mmap": not no_mmap,
            "ignore_metadata": ignore_metadata or (),
        },
        batch_size=batch_size,
        pooling=str(pooling),
        normalize=not no_normalize,
        return_tensors=True,
    )
    if pooling is Pooling.auto and worker.model.pooling in (None, "none"):
        note(
            "The model states no pooling: these are vectors of tokens. --pooling mean, cls or last makes one "
            "vector of each text."
        )
    limit = worker.context_length
    if truncate and limit is not None:
        worker.options |= {"truncation": True, "tokenize_kwargs": {"max_length": limit}}
    vectors = (json.dumps(_numbers(vector)) for vector in worker(iter(lines)))
    if as_array:
        print(f"[{', '.join(vectors)}]")
        return
    for vector in vectors:
        print(vector, flush=True)


def _read_lines(file: str) -> list[str]:
    """Return the lines of a file that are not empty."""
    return [line for line in Path(file).read_text("utf-8").split("\n") if line.strip()]


def _typed_lines() -> Iterator[str]:
    """Yield the lines of standard input that are not empty."""
    if sys.stdin.isatty():
        note("Type one text in each line; Ctrl-D ends them.")
    return (text for line in sys.stdin if (text := line.rstrip("\n")).strip())


def _numbers(vector: Any) -> list[Any]:
    """Return the numbers of a vector, or of a matrix in rows, no longer than FP32 distinguishes them."""
    rows = vector[0] if vector.dim() == 3 else vector[None]
    shortened = [[float(f"{number:.9g}") for number in row] for row in rows.tolist()]
    return shortened if vector.dim() == 3 else shortened[0]
