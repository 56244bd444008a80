"""`torchgguf imatrix`: which weights matter, told by what a model does with texts. Also merges and shows."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from torchgguf.cli.options import FILE_HELP, Debug, DType, split_place
from torchgguf.cli.tables import show, table
from torchgguf.cli.terminal import first_interrupt_noted, note, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from torchgguf.conversion.importance import ImportanceCollector
    from torchgguf.models.base import PreTrainedModel
    from torchgguf.packing.imatrix import ImportanceMatrix
    from torchgguf.tokenization import Tokenizer

STDIN = "-"


class Format(StrEnum):
    """How a matrix is written."""

    gguf = "gguf"
    dat = "dat"


File = Annotated[str | None, Argument(metavar="FILE", help=f"The model. {FILE_HELP}")]
Texts = Annotated[
    list[str] | None,
    Option("--text", metavar="TXT", help="What it shall read, UTF-8; '-': standard input; repeatable."),
]
Given = Annotated[
    list[Path] | None, Option("--in", metavar="IMATRIX", help="A matrix to add, in any format; repeatable.")
]
Output = Annotated[Path, Option("-o", "--output", metavar="IMATRIX", help="The file to write.")]
AsFormat = Annotated[
    Format | None,
    Option("--format", help="dat: llama.cpp's older one.", show_default="dat for *.dat, else gguf"),
]
Chunks = Annotated[int | None, Option("--chunks", min=1, help="Read no more chunks than these.")]
ContextSize = Annotated[int, Option("-c", "--ctx-size", min=16, help="Tokens of a chunk.")]
BatchSize = Annotated[int, Option("--batch-size", min=1, help="Chunks to read side by side.")]
ProcessOutput = Annotated[
    bool, Option("--process-output", help="Also for the head, unless its weights are the embedding's.")
]
Perplexity = Annotated[
    bool, Option("--perplexity/--no-perplexity", help="Tell how well it guesses the text.")
]
ParseSpecial = Annotated[
    bool, Option("--parse-special", help="Take what is spelled like a special token for one.")
]
SaveEvery = Annotated[int, Option("--save-every", min=0, help="Write after so many chunks; 0: at the end.")]
Statistics = Annotated[
    bool, Option("--statistics", help="Show figures of each tensor; of matrices given, write nothing.")
]
Device = Annotated[
    str | None, Option("--device", metavar="DEVICE", help="Where to run, such as cpu or cuda:0.")
]
Threads = Annotated[int | None, Option("--threads", min=1, help="CPU threads; one a core.")]
ModelDType = Annotated[DType | None, Option("--dtype", help="What to calculate in.")]


def imatrix(
    file: File = None,
    text: Texts = None,
    given: Given = None,
    output: Output = Path("imatrix.gguf"),
    format: AsFormat = None,
    chunks: Chunks = None,
    ctx_size: ContextSize = 512,
    batch_size: BatchSize = 1,
    process_output: ProcessOutput = False,
    perplexity: Perplexity = True,
    parse_special: ParseSpecial = False,
    save_every: SaveEvery = 10,
    statistics: Statistics = False,
    device: Device = None,
    threads: Threads = None,
    dtype: ModelDType = None,
    debug: Debug = False,
) -> None:
    """Find out which weights of a model matter: write the importance matrix of what it makes of texts.

    Matrices given by `--in` are added to it. Without FILE and `--text` they are merged, written in another
    format, or shown. Ctrl-C ends the reading; what has been read till then is written.
    """
    if (file is None) != (not text):
        raise typer.BadParameter("a model needs texts to read, and texts a model: FILE --text TXT")
    if file is None and not given:
        raise typer.BadParameter("name a model and a text, or matrices: FILE --text TXT, or --in IMATRIX")
    from torchgguf.packing.imatrix import ImportanceMatrix, load_imatrix

    writes = file is not None or not statistics
    if writes:
        _check_writable(output)
    matrices = [load_imatrix(path, ctx_size) for path in given or ()]
    layout = format or (Format.dat if output.suffix == ".dat" else Format.gguf)

    def save(*collected: ImportanceMatrix) -> ImportanceMatrix:
        matrix = ImportanceMatrix.merged([*matrices, *collected])
        matrix.save(output, layout.value)
        return matrix

    finished = True
    if file is None or not text:
        matrix = save() if writes else ImportanceMatrix.merged(matrices)
    else:
        from torchgguf.conversion.importance import ImportanceCollector, chunk_start, cut, read_tokens

        names = ["stdin" if each == STDIN else each for each in text]
        contents = [_read(each) for each in text]
        model, tokenizer = _load(file, device, threads, dtype)
        tokens = cut(read_tokens(tokenizer, contents, parse_special), ctx_size, chunk_start(tokenizer))
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
    """Begin to write, and give it up: better refused now than after hours of reading.

    What is there already is replaced only if it is a matrix too: the name might be that of the model.
    """
    from torchgguf.container import GGUFError
    from torchgguf.container.atomic import atomic_write
    from torchgguf.packing import load_imatrix

    if path.is_file() and path.stat().st_size:
        try:
            load_imatrix(path)
        except GGUFError as error:
            raise ValueError(f"{error}. It is not replaced: name another file to write (--output)") from None
    with suppress(_TrialError), atomic_write(path):
        raise _TrialError


def _read(place: str) -> str:
    """A text, without the end of its last line, as llama-imatrix reads it."""
    data = sys.stdin.buffer.read() if place == STDIN else Path(place).read_bytes()
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {data[error.start]:#04x}"
        raise ValueError(f"{place}: is no UTF-8 text: {byte}") from None


def _load(
    file: str, device: str | None, threads: int | None, dtype: DType | None
) -> "tuple[PreTrainedModel, Tokenizer]":
    import torch

    from torchgguf import AutoModelForCausalLM, AutoTokenizer
    from torchgguf.models.devices import available_device

    place, gguf_file = split_place(file)
    target = None if device is None else available_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file)
    precision = None if dtype is None else getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file, dtype=precision)
    return model.to(target or model.device), tokenizer


def _collect(
    collector: "ImportanceCollector",
    chunks: "Tensor",
    batch_size: int,
    save_every: int,
    save: Callable[[], object],
) -> bool:
    """Read the chunks, and save now and then; False if Ctrl-C ended it."""
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
        note(f"No token came to some experts in {which}; to those all columns matter alike. Take more text.")


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
