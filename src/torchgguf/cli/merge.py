"""`torchgguf merge`: merge the files of a split model."""

from pathlib import Path
from typing import Annotated

import typer

from torchgguf.cli.options import DebugOption, OutputArgument, check_folder_of, split_place
from torchgguf.cli.terminal import one_line, progress_bar

_File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Any of the files, with the others in the same folder; or REPO:FILE on the Hugging Face Hub.",
    ),
]


def merge_command(file: _File, out: OutputArgument, debug: DebugOption = False) -> None:
    """Merge the files of a split model into one. The parts are unchanged."""
    from torchgguf.container import merge_gguf
    from torchgguf.hub import find_gguf

    check_folder_of(out)
    path = find_gguf(*split_place(file))
    with progress_bar("merging") as progress:
        merge_gguf(path, out, progress=progress)
    print(f"{one_line(out)}: {Path(out).stat().st_size:,} bytes")
