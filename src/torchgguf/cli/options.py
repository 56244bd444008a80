"""The options that commands share. `Options` is their one list: names, types, defaults and help."""

# No postponed annotations here: typer must find the annotations of `Options` as objects.
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from torchgguf.cli.terminal import note, one_line

if TYPE_CHECKING:
    from torchgguf.generation import GenerationConfig

DEBUG = "torchgguf.debug"


def _note_debug(context: typer.Context, wanted: bool) -> None:
    context.meta[DEBUG] = wanted or context.meta.get(DEBUG, False)


class DType(StrEnum):
    """What the model calculates in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# Names of places are not taken for paths: Path("./x") is "x", which could be a repository as well.
FILE_HELP = (
    "A GGUF file (of a split model, any part), a Hugging Face folder, or on the Hugging Face Hub "
    "a repository or REPO:FILE."
)
GGUF_HELP = "A GGUF file, or REPO:FILE on the Hugging Face Hub; of a split model, any part."
FileArgument = Annotated[str, Argument(metavar="FILE", help=FILE_HELP)]
GGUFArgument = Annotated[str, Argument(metavar="FILE", help=GGUF_HELP)]
OutputArgument = Annotated[
    str, Argument(metavar="OUT", help="The file to write, or to replace when the new one is whole.")
]
DebugOption = Annotated[bool, Option("--debug", callback=_note_debug, help="Show tracebacks of errors.")]
DeviceOption = Annotated[
    str | None, Option("--device", metavar="DEVICE", help="Where to run, such as cpu or cuda:0.")
]
DTypeOption = Annotated[DType | None, Option("--dtype", help="What to calculate in.")]
RevisionOption = Annotated[str | None, Option("--revision", help="Branch, tag or commit of the repository.")]
ThreadsOption = Annotated[int | None, Option("--threads", min=1, help="CPU threads; one a core.")]
ImatrixOption = Annotated[
    str | None,
    Option("--imatrix", metavar="FILE", help="Which weights matter most: see `torchgguf imatrix`."),
]
TensorTypesOption = Annotated[
    list[str] | None,
    Option(
        "--tensor-type",
        metavar="PATTERN=TYPE",
        help="Another type for tensors whose names have this in them, a regular expression; repeatable.",
    ),
]

_IN_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?):(?P<name>[^:]+)")


def check_folder_of(out: str) -> None:
    """FileNotFoundError if a file cannot be written for want of a folder: said before anything is fetched."""
    if not (folder := Path(out).parent).is_dir():
        raise FileNotFoundError(f"{out} cannot be written: there is no folder {folder}")


def split_place(file: str) -> tuple[str, str | None]:
    """Take REPO:FILE apart; what there is here, or cannot be in a repository, stays as it is.

    FileNotFoundError for what is spelled as a place here, and is not there.
    """
    if Path(file).exists():
        return file, None
    if file.startswith("./") or file.endswith("/"):  # which no Path tells from a repository
        raise FileNotFoundError(f"there is no {'file' if file.endswith('.gguf') else 'folder'} {file}")
    if sys.stderr.isatty() and not file.endswith(".gguf"):  # the Hub's client waits long where nobody answers
        note(f"There is no {one_line(file)} here: looking on the Hugging Face Hub.")
    in_repository = _IN_REPOSITORY.fullmatch(file)
    return (file, None) if in_repository is None else (in_repository["repository"], in_repository["name"])


def parse_override(text: str) -> tuple[str, str]:
    """Take PATTERN=TYPE apart."""
    pattern, equals, kind = text.rpartition("=")
    if not (pattern and equals and kind):
        raise typer.BadParameter(f"{text!r} is not PATTERN=TYPE", param_hint="--tensor-type")
    return pattern, kind


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to load a model and how to let it answer."""

    max_new_tokens: Annotated[
        int, Option("-n", "--max-new-tokens", min=0, help="Longest answer; 0: until the context is full.")
    ] = 1024
    temperature: Annotated[
        float, Option("-t", "--temperature", min=0, help="How freely to draw; 0 takes the best token always.")
    ] = 0.7
    top_k: Annotated[int, Option("--top-k", min=0, help="Draw from this many best tokens; 0: all.")] = 40
    top_p: Annotated[
        float, Option("--top-p", min=0, max=1, help="Draw from the best tokens with this probability in all.")
    ] = 0.95
    min_p: Annotated[
        float, Option("--min-p", min=0, max=1, help="Drop tokens below this share of the best one's chance.")
    ] = 0.05
    repetition_penalty: Annotated[
        float, Option("--repetition-penalty", help="Above 1 avoids what has been said before.")
    ] = 1.0
    seed: Annotated[
        int | None, Option("--seed", min=0, max=2**32 - 1, help="Draw the same answer every time.")
    ] = None
    stop: Annotated[list[str] | None, Option("--stop", help="End at this text; repeatable.")] = None
    system: Annotated[str | None, Option("--system", help="Instructions that come first.")] = None
    device: DeviceOption = None
    threads: ThreadsOption = None
    dtype: DTypeOption = None
    dequantize: Annotated[
        bool, Option("--dequantize", help="Unpack all weights at load: more memory, plain torch layers.")
    ] = False
    stats: Annotated[
        bool | None, Option("--stats/--no-stats", help="Tell tokens/s.", show_default="on a terminal")
    ] = None
    debug: DebugOption = False

    @property
    def wants_stats(self) -> bool:
        """Whether to show how fast an answer came; by default only to people."""
        return sys.stderr.isatty() if self.stats is None else self.stats

    def generation_config(self) -> "GenerationConfig":
        """What they say of choosing tokens. Raises `typer.BadParameter` for what cannot be meant."""
        from torchgguf.generation import GenerationConfig

        sampling = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        try:
            return GenerationConfig(
                do_sample=self.temperature != 0,
                repetition_penalty=self.repetition_penalty,
                stop_strings=self.stop,
                **(sampling if self.temperature else {}),
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `options: Options` the fields of `Options` as command line options."""
    own = [p for p in inspect.signature(command).parameters.values() if p.annotation is not Options]
    shared = list(inspect.signature(Options).parameters.values())

    def run(**values: Any) -> None:
        arguments = {parameter.name: values.pop(parameter.name) for parameter in own}
        command(**arguments, options=Options(**values))

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
