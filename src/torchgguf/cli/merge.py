"""`torchgguf merge`: merge the files of a split model, and adapters into a model."""

from pathlib import Path
from typing import Annotated

import typer

from torchgguf.cli.options import (
    DebugOption,
    ImatrixOption,
    LoraOption,
    OutputArgument,
    TensorTypesOption,
    ThreadsOption,
    check_folder_of,
    parse_factor,
    parse_override,
    split_place,
    wrong_usage,
)
from torchgguf.cli.terminal import one_line, progress_bar

_File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="The model; for a split one any of its files, with the others in the same folder; or REPO:FILE "
        "on the Hugging Face Hub.",
    ),
]
_Type = Annotated[
    str | None,
    typer.Option(
        "-q",
        "--quantization",
        metavar="TYPE",
        help="The type of all tensors that adapters change; by default each keeps its own.",
    ),
]


def merge_command(
    file: _File,
    out: OutputArgument,
    lora: LoraOption = None,
    quantization: _Type = None,
    tensor_type: TensorTypesOption = None,
    imatrix: ImatrixOption = None,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Merge the files of a split model into one; with `--lora`, also adapters into its weights.

    The parts are unchanged. Of a model with adapters, only tensors that these change are packed anew; a table
    shows what packing left of the changes.
    """
    from torchgguf.container import merge_gguf
    from torchgguf.hub import find_gguf

    check_folder_of(out)
    if not lora:
        if given := [name for name, value in _of_adapters(quantization, tensor_type, imatrix) if value]:
            raise typer.BadParameter("requires --lora", param_hint=given[0])
        path = find_gguf(*split_place(file))
        with progress_bar("merging") as progress:
            merge_gguf(path, out, progress=progress)
    else:
        import torch

        from torchgguf.cli.steering import locate_adapter
        from torchgguf.cli.summaries import show_merge
        from torchgguf.quants import quant_type
        from torchgguf.training.merging import MergeReport, merge_into_gguf

        if threads is not None:
            torch.set_num_threads(threads)
        overrides = tuple(map(parse_override, tensor_type or ()))
        with wrong_usage():
            for kind in (quantization, *(kind for _, kind in overrides)):
                if kind is not None:
                    quant_type(kind)
        adapters = {locate_adapter(one): factor for one, factor in (parse_factor(x, "--lora") for x in lora)}
        path = find_gguf(*split_place(file))
        report = MergeReport()
        with progress_bar("merging", lambda: next(reversed(report.tensors), "")) as progress:
            merge_into_gguf(
                path,
                adapters,
                out,
                quantization=quantization,
                overrides=overrides,
                imatrix=imatrix,
                report=report,
                progress=progress,
            )
        show_merge(report)
    print(f"{one_line(out)}: {Path(out).stat().st_size:,} bytes")


def _of_adapters(
    quantization: str | None, tensor_type: list[str] | None, imatrix: str | None
) -> list[tuple[str, object]]:
    return [("--quantization", quantization), ("--tensor-type", tensor_type), ("--imatrix", imatrix)]
