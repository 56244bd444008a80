"""`torchgguf convert`: convert a Hugging Face checkpoint to a GGUF file, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgguf.cli.options import (
    DebugOption,
    DType,
    ImatrixOption,
    RevisionOption,
    TensorTypesOption,
    ThreadsOption,
    parse_override,
    parse_size,
    split_place,
    wrong_usage,
)
from torchgguf.cli.terminal import one_line, progress_bar

if TYPE_CHECKING:
    from torchgguf.packing import Quantization

_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A Hugging Face folder or a repository of the Hub; or, for the other direction, a GGUF file or "
        "REPO:FILE (for a split model, any part).",
    ),
]
_Target = Annotated[
    str | None,
    typer.Argument(
        metavar="OUT",
        help="A .gguf file, or a folder for a file with the usual name; by default the current folder. For "
        "the other direction the folder to write; it is created if it does not exist.",
    ),
]
_Type = Annotated[
    str | None,
    typer.Option(
        "-q",
        "--quantization",
        metavar="TYPE",
        help="F32, F16, BF16, Q8_0, Q4_K_M or any other type of llama-quantize. By default types stay.",
    ),
]
_Verify = Annotated[
    bool, typer.Option("--verify", help="Load the written file and compare it with the source.")
]
_NoTokenizer = Annotated[bool, typer.Option("--no-tokenizer", help="Write the model without its tokenizer.")]
_Pre = Annotated[
    str | None,
    typer.Option(
        "--pre", metavar="NAME", help="The splitting rule of the tokenizer, if it is not recognized."
    ),
]
_WeightsDType = Annotated[
    DType | None,
    typer.Option(
        "--dtype",
        metavar="float32|bfloat16|float16",
        help="The dtype of weights in a Hugging Face folder; by default an exact one.",
    ),
]
_MaxShardSize = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Largest file with weights in a Hugging Face folder, such as 5GB.",
    ),
]
_Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="For a LoRA adapter, from a folder of PEFT to a .gguf file or the reverse: the model that it "
        "belongs to.",
    ),
]


def convert_command(
    source: _Source,
    out: _Target = None,
    quantization: _Type = None,
    imatrix: ImatrixOption = None,
    tensor_type: TensorTypesOption = None,
    verify: _Verify = False,
    pre: _Pre = None,
    no_tokenizer: _NoTokenizer = False,
    dtype: _WeightsDType = None,
    max_shard_size: _MaxShardSize = None,
    base: _Base = None,
    revision: RevisionOption = None,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Convert a Hugging Face model to a GGUF file, or a GGUF file to a Hugging Face folder.

    One tensor is in memory at a time, regardless of the size of the model. An existing file is replaced when
    the new one is complete.
    """
    import torch

    from torchgguf.models.io.opening import is_gguf

    if threads is not None:
        torch.set_num_threads(threads)
    place, gguf_file = split_place(source)
    if revision is not None and Path(place).exists():
        raise typer.BadParameter("only for repositories", param_hint="--revision")
    options: dict[str, Any] = {"tokenizer": not no_tokenizer}
    if revision is not None:
        options["revision"] = revision
    of_files = {
        "--quantization": quantization,
        "--imatrix": imatrix,
        "--tensor-type": tensor_type,
        "--verify": verify or None,
        "--pre": pre,
    }
    of_folders = {"--dtype": dtype, "--max-shard-size": max_shard_size}
    if base is not None:
        _refuse({**of_files, **of_folders, "--no-tokenizer": no_tokenizer or None}, "not for adapters")
        _adapter(
            place, gguf_file, out, base, {name: options[name] for name in ("revision",) if name in options}
        )
        return
    if _is_adapter(Path(place)):
        raise typer.BadParameter(
            f"{source} is an adapter: name its model with --base MODEL", param_hint="SOURCE"
        )
    if gguf_file is not None or is_gguf(Path(place)):
        _check_gguf(Path(place), gguf_file)
        if out is None or (out.endswith(".gguf") and not Path(out).is_dir()):
            wish = "name a folder for a Hugging Face model, or use `torchgguf quantize` to change types"
            raise typer.BadParameter(f"{source} is a GGUF file already: {wish}", param_hint="OUT")
        if Path(out).is_file():
            raise typer.BadParameter(f"{out} is a file: name a folder to write", param_hint="OUT")
        _refuse(of_files, "only for writing a GGUF file")
        size = max_shard_size and parse_size(max_shard_size, "--max-shard-size")
        stated = {"dtype": dtype and dtype.value, "max_shard_size": size}
        options |= {name: value for name, value in stated.items() if value is not None}
        _to_folder(place, gguf_file, out, options)
    else:
        if out is not None and not out.endswith(".gguf") and not Path(out).is_dir():
            wish = f"add the ending ({out}.gguf), or create the folder first"
            raise typer.BadParameter(f"{out} is neither a .gguf file nor a folder: {wish}", param_hint="OUT")
        _refuse(of_folders, "only for writing a Hugging Face folder")
        how = _quantization(quantization, imatrix, tensor_type or [])
        _to_file(place, out, verify, {**options, "quantization": how, "pre": pre})


def _is_adapter(path: Path) -> bool:
    """Return whether a path is PEFT's folder of an adapter, or a GGUF file of one."""
    from torchgguf.container.reading.recognition import is_gguf_file

    if path.is_dir():
        return (path / "adapter_config.json").exists() and not (path / "config.json").exists()
    if not (path.is_file() and is_gguf_file(path)):
        return False
    from torchgguf.container import open_gguf
    from torchgguf.training.adapters.gguf_files import is_gguf_adapter

    with open_gguf(path, mmap=False) as file:
        return is_gguf_adapter(file)


def _adapter(place: str, gguf_file: str | None, out: str | None, base: str, hub: dict[str, Any]) -> None:
    from torchgguf.training.adapters import convert_adapter

    is_file = gguf_file is not None or Path(place).is_file()
    if out is None or out.endswith(".gguf") == is_file:
        wish = "name a folder to write" if is_file else "name a .gguf file to write"
        raise typer.BadParameter(f"{wish} for the adapter {place}", param_hint="OUT")
    base_place, base_file = split_place(base)
    convert_adapter(place, out, base_place, gguf_file=gguf_file, base_file=base_file, **hub)
    written = [Path(out)] if Path(out).is_file() else sorted(Path(out).glob("adapter_*"))
    for path in written:
        print(f"{one_line(str(path))}: {path.stat().st_size:,} bytes")


def _check_gguf(path: Path, gguf_file: str | None) -> None:
    """Check that a path is a file, either GGUF or part of a Hugging Face model.

    Raises:
        FileNotFoundError: it is a folder with GGUF files, which the message names, or it does not exist.
        ValueError: it is any other file.
    """
    from torchgguf.container.reading.recognition import is_gguf_file
    from torchgguf.hub import find_gguf

    if gguf_file is None:
        find_gguf(path)
    if path.is_file() and not is_gguf_file(path):
        raise ValueError(
            f"{path} is neither a GGUF file nor part of a Hugging Face model: name the folder of the "
            "model, or its .safetensors or .bin file"
        )


def _quantization(kind: str | None, imatrix: str | None, tensor_types: list[str]) -> "Quantization | None":
    if kind is None:
        if imatrix or tensor_types:
            raise typer.BadParameter("--imatrix and --tensor-type require --quantization")
        return None
    overrides = tuple(map(parse_override, tensor_types))
    from torchgguf.packing import Quantization

    with wrong_usage():
        return Quantization(kind, imatrix=imatrix, overrides=overrides)


def _to_file(place: str, out: str | None, verify: bool, options: dict[str, Any]) -> None:
    from torchgguf.cli.summaries import show_report, show_verification
    from torchgguf.conversion import convert_to_gguf, verify_converted
    from torchgguf.packing import PackingReport

    report = PackingReport()
    with progress_bar("converting", lambda: next(reversed(report.tensors), "")) as progress:
        path = convert_to_gguf(place, out, report=report, progress=progress, **options)
    show_report(report, [path])
    if verify:
        hub = {name: options[name] for name in ("revision",) if name in options}
        with progress_bar("comparing") as progress:
            verification = verify_converted(path, place, progress=progress, **hub)
        show_verification(verification)


def _to_folder(place: str, gguf_file: str | None, out: str, options: dict[str, Any]) -> None:
    from torchgguf.conversion import convert_to_checkpoint

    dtype = convert_to_checkpoint(place, out, gguf_file=gguf_file, **options)
    size = sum(path.stat().st_size for path in Path(out).glob("model*.safetensors"))
    print(f"{one_line(out)}: {size:,} bytes of {str(dtype).removeprefix('torch.')} weights")


def _refuse(options: dict[str, Any], why: str) -> None:
    if given := [name for name, value in options.items() if value is not None]:
        raise typer.BadParameter(why, param_hint=given[0])
