"""`torchgguf merge`: the files of a split model as one."""

from typing import Annotated

import typer

from torchgguf.cli.options import Debug
from torchgguf.cli.terminal import progress_bar

File = Annotated[str, typer.Argument(metavar="FILE", help="Any of the files; the others lie beside it.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The file to write, or to replace.")]


def merge(file: File, out: Out, debug: Debug = False) -> None:
    """Make one file of a split model. The parts stay as they are."""
    from torchgguf.container import merge_gguf

    with progress_bar("merging") as progress:
        merge_gguf(file, out, progress=progress)
