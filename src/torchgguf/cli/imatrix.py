"""`torchgguf imatrix`: collect an importance matrix from texts, or merge, convert and show matrices."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from torchgguf.cli.options import FILE_HELP, DebugOption, DeviceOption, DTypeOption, ThreadsOption
from torchgguf.cli.tables import show, table
from torchgguf.cli.terminal import note, one_line
from torchgguf.interrupts import first_interrupt_noted

if TYPE_CHECKING:
    from torch import Tensor

    from torchgguf.conversion.importance import ImportanceCollector
    from torchgguf.packing.imatrix import ImportanceMatrix

STDIN = "-"


class _Format(StrEnum):
    """The formats of importance matrices."""

    gguf = "gguf"
    dat = "dat"


_File = Annotated[str | None, Argument(metavar="FILE", help=f"The model. {FILE_HELP}")]
_Texts = Annotated[
    list[str] | None,
    Option(
        "--text", metavar="TXT", help="A UTF-8 text for the model to read; '-': standard input; repeatable."
    ),
]
_Given = Annotated[
    list[Path] | None,
    Option("--in", metavar="IMATRIX", help="An importance matrix to add, in any format; repeatable."),
]
_Output = Annotated[Path, Option("-o", "--output", metavar="IMATRIX", help="The file to create or replace.")]
_AsFormat = Annotated[
    _Format | None,
    Option(
        "--format",
        metavar="gguf|dat",
        help="dat is llama.cpp's older format.",
        show_default="dat for *.dat, else gguf",
    ),
]
_Chunks = Annotated[
    int | None, Option("--chunks", metavar="N", min=1, help="The largest number of chunks to read.")
]
_ContextSize = Annotated[
    int, Option("-c", "--ctx-size", metavar="N", min=16, help="The length of a chunk in tokens.")
]
_BatchSize = Annotated[
    int, Option("--batch-size", metavar="N", min=1, help="The number of chunks in a batch.")
]
_ProcessOutput = Annotated[
    bool, Option("--process-output", help="Also collect for the head, unless it is tied to the embeddings.")
]
_Perplexity = Annotated[bool, Option("--perplexity/--no-perplexity", help="Show the perplexity of the text.")]
_ParseSpecial = Annotated[bool, Option("--parse-special", help="Parse special tokens in the text.")]
_SaveEvery = Annotated[
    int,
    Option("--save-every", metavar="N", min=0, help="Write after every so many chunks; 0: only at the end."),
]
_Statistics = Annotated[
    bool, Option("--statistics", help="Show statistics of each tensor; without a model, write nothing.")
]


def imatrix_command(
    file: _File = None,
    text: _Texts = None,
    given: _Given = None,
    output: _Output = Path("imatrix.gguf"),
    format: _AsFormat = None,
    chunks: _Chunks = None,
    ctx_size: _ContextSize = 512,
    batch_size: _BatchSize = 1,
    process_output: _ProcessOutput = False,
    perplexity: _Perplexity = True,
    parse_special: _ParseSpecial = False,
    save_every: _SaveEvery = 10,
    statistics: _Statistics = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dtype: DTypeOption = None,
    debug: DebugOption = False,
) -> None:
    """Run a model on texts, and write the importance matrix of its weights.

    Matrices from `--in` are added to it. Without FILE and `--text` these are merged, converted to another
    format, or shown. Ctrl-C stops reading and writes the matrix of the chunks that were read.
    """
    if (file is None) != (not text):
        raise typer.BadParameter("FILE and --text must be used together")
    if file is None and not given:
        raise typer.BadParameter("requires a model and a text, or matrices: FILE --text TXT, or --in IMATRIX")
    from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix

    writes = file is not None or not statistics
    if writes:
        _check_writable(output)
    matrices = [load_imatrix(path, ctx_size) for path in given or ()]
    layout = format or (_Format.dat if output.suffix == ".dat" else _Format.gguf)

    def save(*collected: ImportanceMatrix) -> ImportanceMatrix:
        matrix = ImportanceMatrix.merged([*matrices, *collected])
        matrix.save(output, layout.value)
        return matrix

    finished = True
    if file is None or not text:
        matrix = save() if writes else ImportanceMatrix.merged(matrices)
    else:
        from torchgguf.cli.loading import load_with_tokenizer
        from torchgguf.conversion.importance import ImportanceCollector, chunk_start_token, cut, encode_texts

        names = ["stdin" if each == STDIN else each for each in text]
        contents = [_read(each) for each in text]
        model, tokenizer = load_with_tokenizer(file, device=device, threads=threads, dtype=dtype)
        tokens = cut(encode_texts(tokenizer, contents, parse_special), ctx_size, chunk_start_token(tokenizer))
        collector = ImportanceCollector(model, process_output=process_output, perplexity=perplexity)
        finished = _collect(
            collector, tokens[:chunks], batch_size, save_every, lambda: save(collector.matrix(names))
        )
        matrix = save(collector.matrix(names))
        if not finished:
            note(f"Stopped after {collector.chunks} of {len(tokens[:chunks])} chunks.")
        _tell_perplexity(collector)
    if statistics:
        _show(matrix)
    if writes:
        _tell(output, matrix)
    if not finished:
        raise KeyboardInterrupt


class _TrialError(Exception):
    pass


def _check_writable(path: Path) -> None:
    """Start and cancel a write, so that an error appears before hours of reading.

    An existing file is replaced only if it is an importance matrix too: it might be the model.
    """
    from torchgguf.container import GGUFError
    from torchgguf.container.atomic import atomic_write
    from torchgguf.packing import load_imatrix

    if path.is_file() and path.stat().st_size:
        try:
            load_imatrix(path)
        except GGUFError as error:
            raise ValueError(f"{error}. It is not replaced: name another output file (--output)") from None
    with suppress(_TrialError), atomic_write(path):
        raise _TrialError


def _read(place: str) -> str:
    """Read a text without its last line break, as llama-imatrix does."""
    data = sys.stdin.buffer.read() if place == STDIN else Path(place).read_bytes()
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValueError(f"{place}: is not a UTF-8 text: {byte}") from None


def _collect(
    collector: "ImportanceCollector",
    chunks: "Tensor",
    batch_size: int,
    save_every: int,
    save: Callable[[], object],
) -> bool:
    """Read the chunks and save regularly; return whether all were read, without Ctrl-C."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    bar = tqdm(total=len(chunks), desc="reading", unit="chunk", delay=1, leave=False, disable=None)
    with collector, bar, first_interrupt_noted() as interrupted:
        for batch in chunks.split(batch_size):
            collector.read(batch)
            perplexity, _ = collector.perplexity
            bar.set_postfix_str(
                "" if math.isnan(perplexity) else f"perplexity {perplexity:.4f}", refresh=False
            )
            bar.update(len(batch))
            if interrupted.is_set() or collector.chunks == len(chunks):
                break
            if save_every and collector.chunks % save_every < len(batch):
                save()
    return collector.chunks == len(chunks)


def _tell_perplexity(collector: "ImportanceCollector") -> None:
    perplexity, error = collector.perplexity
    if not math.isnan(perplexity):
        note(f"perplexity {perplexity:.4f} ± {error:.4f}")


def _tell(path: Path, matrix: "ImportanceMatrix") -> None:
    chunks = f"{matrix.chunk_count} chunk{'s'[: matrix.chunk_count != 1]} of {matrix.chunk_size} tokens"
    note(f"{one_line(str(path))}: {len(matrix)} tensors, {chunks}")
    if missed := [name for name, each in matrix.activations.items() if not each.counts.all()]:
        which = f"{missed[0]} and {len(missed) - 1} more tensors" if len(missed) > 1 else missed[0]
        note(f"No token reached some experts in {which}: all their columns count the same. Use more text.")


def _show(matrix: "ImportanceMatrix") -> None:
    from torchgguf.packing.imatrix_summary import summarize

    columns = [
        "name",
        "sum",
        "least",
        "most",
        "mean",
        "deviation",
        "active",
        "entropy",
        "outliers",
        "similarity",
    ]
    rows = [
        (
            each.name,
            *(f"{x:.4g}" for x in (each.total, each.least, each.most, each.mean, each.deviation)),
            *(f"{x:.2%}" for x in (each.active, each.evenness, each.outliers)),
            f"{each.similarity:.4f}",
        )
        for each in summarize(matrix)
    ]
    show(table("mean squares of activations", columns, rows))
