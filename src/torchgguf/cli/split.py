"""`torchgguf split`: split a GGUF file into several."""

from pathlib import Path
from typing import Annotated

import typer

from torchgguf.cli.options import DebugOption, GGUFArgument, check_folder_of, parse_size, split_place
from torchgguf.cli.tables import show, table
from torchgguf.cli.terminal import progress_bar

_Prefix = Annotated[
    str, typer.Argument(metavar="PREFIX", help="The beginning of the new names: PREFIX-00001-of-00003.gguf.")
]
_MaxSize = Annotated[
    str | None,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="Most bytes of tensors in a file, such as 500M or 2G (powers of 1000), without metadata.",
    ),
]
_MaxTensors = Annotated[
    int | None, typer.Option("--max-tensors", metavar="N", min=1, help="Most tensors in a file.")
]
_NoTensorFirstSplit = Annotated[
    bool, typer.Option("--no-tensor-first-split", help="Put only metadata in the first file.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the files without writing them.")]


def split_command(
    file: GGUFArgument,
    prefix: _Prefix,
    max_size: _MaxSize = None,
    max_tensors: _MaxTensors = None,
    no_tensor_first_split: _NoTensorFirstSplit = False,
    dry_run: _DryRun = False,
    debug: DebugOption = False,
) -> None:
    """Split a model into several files, as llama.cpp's gguf-split does.

    All of them appear when the last is complete. Existing files are never replaced.
    """
    if (max_size is None) is (max_tensors is None):
        raise typer.BadParameter("exactly one of --max-size and --max-tensors is required")
    if prefix.endswith("/") or Path(prefix).is_dir():
        example = Path(prefix) / "model"
        raise typer.BadParameter(
            f"{prefix} is a folder: add the beginning of the names, such as {example}",
            param_hint="PREFIX",
        )
    from torchgguf.container import open_gguf, plan_split, shard_paths, write_split
    from torchgguf.hub import find_gguf

    if not dry_run:
        check_folder_of(prefix)
    with open_gguf(find_gguf(*split_place(file))) as gguf:
        files = plan_split(
            gguf.tensors,
            max_bytes=None if max_size is None else parse_size(max_size, "--max-size"),
            max_tensors=max_tensors,
            tensors_in_first=not no_tensor_first_split,
        )
        paths = shard_paths(prefix, len(files))
        if not dry_run:
            with progress_bar("splitting") as progress:
                write_split(prefix, gguf.metadata, gguf.sources(), files, progress=progress)
        sizes = [sum(gguf.tensors[name].nbytes for name in names) for names in files]
    rows = [
        (str(path), f"{len(names):,}", f"{size:,}")
        for path, names, size in zip(paths, files, sizes, strict=True)
    ]
    show(table("would be written" if dry_run else "written", ["file", "tensors", "bytes of tensors"], rows))
