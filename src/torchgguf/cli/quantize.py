"""`torchgguf quantize`: change the types of a GGUF file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchgguf.cli.options import (
    DebugOption,
    ImatrixOption,
    OutputArgument,
    TensorTypesOption,
    ThreadsOption,
    check_folder_of,
    parse_override,
    split_place,
    wrong_usage,
)
from torchgguf.cli.terminal import note, one_line, progress_bar

if TYPE_CHECKING:
    from torchgguf.packing import Quantization

# The help for recipes: average bits per weight of an 8B Llama 3 with an importance matrix; a description.
RECIPE_HELP = {
    "F32": (32.00, "single precision, to compute with or to start from"),
    "F16": (16.00, "half precision, to start from"),
    "BF16": (16.00, "bfloat16, as most models are published: to start from"),
    "Q8_0": (8.50, "no noticeable loss; simple and fast"),
    "Q6_K": (6.56, "almost no loss"),
    "Q5_K_M": (5.70, "very small loss"),
    "Q5_K_S": (5.57, "a little smaller than Q5_K_M"),
    "Q4_K_M": (4.89, "the usual choice: small, with little loss"),
    "Q4_K_S": (4.67, "a little smaller than Q4_K_M"),
    "IQ4_NL": (4.65, "like Q4_K_S; also for rows that are not a multiple of 256"),
    "IQ4_XS": (4.42, "about as good as Q4_K_S, but smaller"),
    "Q3_K_L": (4.30, "noticeably worse than four bits"),
    "Q3_K_M": (4.00, "the best balance with three bits"),
    "IQ3_M": (3.76, "better than Q3_K_M for its size"),
    "IQ3_S": (3.66, "better than Q3_K_S for its size"),
    "Q3_K_S": (3.64, "large loss"),
    "IQ3_XS": (3.50, "between IQ3_S and IQ3_XXS; needs --imatrix"),
    "IQ3_XXS": (3.25, "the smallest useful type for most models; needs --imatrix"),
    "Q2_K": (3.16, "very large loss"),
    "Q2_K_S": (2.97, "even larger loss; needs --imatrix"),
    "IQ2_M": (2.93, "large models only; needs --imatrix"),
    "IQ2_S": (2.74, "large models only; needs --imatrix"),
    "IQ2_XS": (2.59, "large models only; needs --imatrix"),
    "IQ2_XXS": (2.38, "large models only; needs --imatrix"),
    "IQ1_M": (2.15, "very large models only; needs --imatrix"),
    "IQ1_S": (2.00, "very large models only; needs --imatrix"),
    "Q5_1": (6.04, "older than Q5_K and worse for its size"),
    "Q5_0": (5.59, "older than Q5_K and worse for its size"),
    "Q4_1": (5.10, "older than Q4_K and worse for its size"),
    "Q4_0": (4.65, "older than Q4_K; for models trained for it"),
    "MXFP4": (4.25, "4-bit floats in blocks of 32, for models trained for it"),
    "MXFP4_MOE": (8.50, "MXFP4 for experts, Q8_0 for other tensors"),
    "NVFP4": (4.50, "4-bit floats in blocks of 16, for models trained for it"),
    "TQ2_0": (2.52, "for models whose weights are -1, 0 and 1"),
    "TQ1_0": (2.19, "like TQ2_0, but smaller and slower"),
    "Q2_0": (2.68, "for models trained for two bits"),
    "Q1_0": (1.48, "for models trained for one bit"),
}

_File = Annotated[
    str,
    typer.Argument(
        metavar="IN", help="A GGUF file of any architecture, or REPO:FILE; for a split model, any part."
    ),
]
_Type = Annotated[str | None, typer.Argument(metavar="TYPE", help="One of the recipes above.")]
_OutputTensorType = Annotated[
    str | None, typer.Option("--output-tensor-type", metavar="TYPE", help="The type of the head.")
]
_TokenEmbeddingType = Annotated[
    str | None,
    typer.Option("--token-embedding-type", metavar="TYPE", help="The type of the token embeddings."),
]
_LeaveOutputTensor = Annotated[bool, typer.Option("--leave-output-tensor", help="Do not pack the head.")]
_Pure = Annotated[bool, typer.Option("--pure", help="Use the main type of the recipe for all tensors.")]
_AllowRequantize = Annotated[
    bool,
    typer.Option("--allow-requantize", help="Also pack tensors that are packed already, which adds errors."),
]
_KeepSplit = Annotated[
    bool, typer.Option("--keep-split", help="Write as many files as IN has: OUT-00001-of-….")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the new types without writing; OUT is optional.")
]
_Verify = Annotated[
    bool,
    typer.Option("--verify", help="Load the written file, and compare tensors and predictions with IN."),
]


def quantize_command(
    file: _File,
    out: OutputArgument,
    type: _Type = None,
    imatrix: ImatrixOption = None,
    tensor_type: TensorTypesOption = None,
    output_tensor_type: _OutputTensorType = None,
    token_embedding_type: _TokenEmbeddingType = None,
    leave_output_tensor: _LeaveOutputTensor = False,
    pure: _Pure = False,
    allow_requantize: _AllowRequantize = False,
    keep_split: _KeepSplit = False,
    dry_run: _DryRun = False,
    verify: _Verify = False,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    if type is None:
        if not dry_run:
            raise typer.BadParameter("requires IN, OUT and TYPE")
        type = out
    if dry_run and verify:
        raise typer.BadParameter("a dry run writes nothing", param_hint="--verify")
    overrides = tuple(map(parse_override, tensor_type or ()))
    import torch

    from torchgguf.hub import find_gguf
    from torchgguf.models.io.opening import is_gguf
    from torchgguf.packing import Quantization

    if threads is not None:
        torch.set_num_threads(threads)
    with wrong_usage():
        quantization = Quantization(
            type,
            imatrix=imatrix,
            overrides=overrides,
            output_type=output_tensor_type,
            token_embedding_type=token_embedding_type,
            leave_output=leave_output_tensor,
            pure=pure,
            allow_requantize=allow_requantize,
        )
    if not dry_run:
        check_folder_of(out)
    if Path(file).is_dir() and not is_gguf(Path(file)):
        way = f"`torchgguf convert {file} OUT --quantization {type}`"
        raise ValueError(f"{file} is not a GGUF file: pack Hugging Face models with {way}")
    path = find_gguf(*split_place(file))
    if dry_run:
        _plan(path, quantization, keep_split)
    else:
        _quantize(path, out, quantization, keep_split, verify)


quantize_command.__doc__ = "\n".join(
    [
        "Pack a GGUF file to another type, as llama-quantize does, with any architecture.",
        "",
        "Best results need F32, F16 or BF16 as input. IN is unchanged. A recipe chooses the type of each "
        "tensor; the list shows the average bits per weight of an 8B Llama 3:",
        "",
        *(f"- {name}: {bits:.2f}, {description}" for name, (bits, description) in RECIPE_HELP.items()),
    ]
)


def _plan(path: Path, quantization: "Quantization", keep_split: bool) -> None:
    from torchgguf.cli.summaries import show_plan
    from torchgguf.conversion.requantize import plan_requantization

    plan = plan_requantization(path, quantization, keep_split=keep_split)
    show_plan(plan.report)
    if plan.obstacle is not None:
        note(f"warning: quantizing would fail: {one_line(plan.obstacle)}")


def _quantize(path: Path, out: str, quantization: "Quantization", keep_split: bool, verify: bool) -> None:
    from torchgguf.cli.summaries import show_report, show_verification
    from torchgguf.conversion.requantize import requantize
    from torchgguf.packing import PackingReport

    report = PackingReport()
    with progress_bar("quantizing", lambda: next(reversed(report.tensors), "")) as progress:
        written = requantize(path, out, quantization, keep_split=keep_split, report=report, progress=progress)
    show_report(report, written)
    if verify:
        from torchgguf.conversion.verification import verify_requantized

        with progress_bar("comparing") as progress:
            verification = verify_requantized(written[0], path, progress=progress)
        show_verification(verification)
