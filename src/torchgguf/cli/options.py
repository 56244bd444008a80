"""Options that several commands share; `Options` are those of `run` and `chat`."""

# Without postponed annotations: typer needs the annotations of `Options` as objects.
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from torchgguf.cli.terminal import note, one_line

if TYPE_CHECKING:
    from torchgguf.generation import GenerationConfig

DEBUG = "torchgguf.debug"


def _note_debug(context: typer.Context, wanted: bool) -> None:
    context.meta[DEBUG] = wanted or context.meta.get(DEBUG, False)


def _log_what_is_done(wanted: bool) -> None:
    if wanted:
        from torchgguf.logging import set_verbosity_info

        set_verbosity_info()


class DType(StrEnum):
    """The dtype for computations."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Speculation(StrEnum):
    """What guesses tokens."""

    mtp = "mtp"


# These arguments stay texts, because Path("./x") is "x", which may also be a repository.
FILE_HELP = (
    "A GGUF file (for a split model, any part), a Hugging Face folder, or on the Hugging Face Hub "
    "a repository or REPO:FILE."
)
GGUF_HELP = "A GGUF file, or REPO:FILE on the Hugging Face Hub; for a split model, any part."
FileArgument = Annotated[str, Argument(metavar="FILE", help=FILE_HELP)]
GGUFArgument = Annotated[str, Argument(metavar="FILE", help=GGUF_HELP)]
OutputArgument = Annotated[
    str, Argument(metavar="OUT", help="The file to create, or to replace when the new one is complete.")
]
DebugOption = Annotated[bool, Option("--debug", callback=_note_debug, help="Show tracebacks of errors.")]
DeviceOption = Annotated[
    str | None, Option("--device", metavar="DEVICE", help="Where to run, such as cpu or cuda:0.")
]
DTypeOption = Annotated[
    DType | None, Option("--dtype", metavar="float32|bfloat16|float16", help="The dtype for computations.")
]
RevisionOption = Annotated[
    str | None, Option("--revision", metavar="NAME", help="A branch, tag or commit of the repository.")
]
ThreadsOption = Annotated[
    int | None, Option("--threads", metavar="N", min=1, help="CPU threads; by default one for each core.")
]
ImatrixOption = Annotated[
    str | None,
    Option("--imatrix", metavar="FILE", help="The importance matrix, see `torchgguf imatrix`."),
]
LoraOption = Annotated[
    list[str] | None,
    Option(
        "--lora",
        metavar="ADAPTER[:FACTOR]",
        help="A LoRA adapter, a GGUF file, a folder of PEFT or a repository of the Hub; repeatable.",
    ),
]
TensorTypesOption = Annotated[
    list[str] | None,
    Option(
        "--tensor-type",
        metavar="PATTERN=TYPE",
        help="The type of tensors whose names match this regular expression; repeatable.",
    ),
]

_LAYERS = re.compile(r"(\d{1,6}):(\d{1,6})")
_FACTOR = re.compile(r"(?P<file>.+):(?P<factor>[+-]?(\d+\.?\d*|\.\d+))")
_SIZE = re.compile(r"(\d+)([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}  # as gguf-split counts them
_IN_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?):(?P<name>[^:]+)")


def check_folder_of(out: str) -> None:
    """Check that the folder of a file to write exists, before any download.

    Raises:
        FileNotFoundError: it does not exist.
    """
    if not (folder := Path(out).parent).is_dir():
        raise FileNotFoundError(f"cannot write {out}: there is no folder {folder}")


def split_place(file: str) -> tuple[str, str | None]:
    """Split REPO:FILE, or the address of a file on the Hub, into repository and name.

    Local files and other texts stay whole, with None as name. The repository of an address with a revision
    stays an address, which all functions that load something accept.

    Raises:
        FileNotFoundError: it is spelled as a local file or folder, but does not exist.
        ValueError: it is an address, but not of a model on the Hub.
    """
    from torchgguf.hub import parse_url

    if Path(file).exists():
        return file, None
    if (url := parse_url(file)) is not None:
        return url.place, url.file
    if file.startswith("./") or file.endswith("/"):  # a Path would drop these marks
        raise FileNotFoundError(f"there is no {'file' if file.endswith('.gguf') else 'folder'} {file}")
    in_repository = _IN_REPOSITORY.fullmatch(file)
    if in_repository is None:
        from torchgguf.hub.reachability import check_not_a_file

        check_not_a_file(file)
    if sys.stderr.isatty():
        note(f"There is no local {one_line(file)}: searching the Hugging Face Hub.")
    return (file, None) if in_repository is None else (in_repository["repository"], in_repository["name"])


@contextmanager
def wrong_usage(option: str | None = None) -> Iterator[None]:
    """Turn the error about the value of an option into one about wrong usage, with its exit code.

    Errors about files stay as they are.

    Args:
        option: named in the message, if the error does not name it.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise typer.BadParameter(str(error), param_hint=option) from None


def parse_override(text: str) -> tuple[str, str]:
    """Split PATTERN=TYPE into the pattern and the type."""
    pattern, equals, kind = text.rpartition("=")
    if not (pattern and equals and kind):
        raise typer.BadParameter(f"{text!r} is not PATTERN=TYPE", param_hint="--tensor-type")
    return pattern, kind


def parse_factor(text: str, option: str) -> tuple[str, float]:
    """Split FILE:FACTOR into the file and the factor, which is 1 for FILE alone."""
    found = None if Path(text).exists() else _FACTOR.fullmatch(text)
    if found is None:
        return text, 1.0
    return found["file"], float(found["factor"])


def parse_layers(text: str) -> tuple[int, int]:
    """Split FIRST:LAST into both numbers."""
    found = _LAYERS.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise typer.BadParameter(f"{text!r} is not FIRST:LAST", param_hint="--control-vector-layers")
    return int(found[1]), int(found[2])


def parse_size(text: str, option: str) -> int:
    """Parse a number of bytes, such as `"2G"`.

    Raises:
        typer.BadParameter: the text is not a size, or it is 0.
    """
    if (match := _SIZE.fullmatch(text)) is None or (size := int(match[1]) * _UNITS[match[2].upper()]) == 0:
        raise typer.BadParameter(f"{text!r} is not a size such as 500M or 2G", param_hint=option)
    return size


# Options for choosing tokens where neither the user nor the model states them.
_SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.0}


def _of_model(name: str) -> str:
    return f"the model's, or {_SAMPLING[name]}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options for loading a model and for its answers."""

    max_new_tokens: Annotated[
        int,
        Option(
            "-n",
            "--max-new-tokens",
            metavar="N",
            min=0,
            help="Longest answer in tokens; 0: until the context is full.",
        ),
    ] = 1024
    temperature: Annotated[
        float | None,
        Option(
            "-t",
            "--temperature",
            metavar="X",
            min=0,
            help="Randomness of sampling; 0 always takes the best token.",
            show_default=_of_model("temperature"),
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Option(
            "--top-k",
            metavar="N",
            min=0,
            help="Sample from this many best tokens; 0: all.",
            show_default=_of_model("top_k"),
        ),
    ] = None
    top_p: Annotated[
        float | None,
        Option(
            "--top-p",
            metavar="X",
            min=0,
            max=1,
            help="Sample from the best tokens with this total probability.",
            show_default=_of_model("top_p"),
        ),
    ] = None
    min_p: Annotated[
        float | None,
        Option(
            "--min-p",
            metavar="X",
            min=0,
            max=1,
            help="Drop tokens below this share of the best probability.",
            show_default=_of_model("min_p"),
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Option(
            "--repetition-penalty",
            metavar="X",
            help="Values above 1 avoid repetition.",
            show_default=_of_model("repetition_penalty"),
        ),
    ] = None
    seed: Annotated[
        int | None,
        Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Return the same answer every time."),
    ] = None
    stop: Annotated[
        list[str] | None, Option("--stop", metavar="TEXT", help="Stop at this text; repeatable.")
    ] = None
    system: Annotated[
        str | None, Option("--system", metavar="TEXT", help="Instructions before the first message.")
    ] = None
    device: DeviceOption = None
    threads: ThreadsOption = None
    dtype: DTypeOption = None
    dequantize: Annotated[
        bool, Option("--dequantize", help="Unpack all weights: more memory, plain torch layers.")
    ] = False
    no_mmap: Annotated[
        bool, Option("--no-mmap", help="Read the file into memory: for one that may become shorter.")
    ] = False
    ignore_metadata: Annotated[
        list[str] | None,
        Option("--ignore-metadata", metavar="KEY", help="Do not read this unknown key; repeatable."),
    ] = None
    lora: LoraOption = None
    control_vector: Annotated[
        list[str] | None,
        Option(
            "--control-vector",
            metavar="FILE[:FACTOR]",
            help="A GGUF file with directions that are added between layers; repeatable.",
        ),
    ] = None
    control_vector_layers: Annotated[
        str | None,
        Option(
            "--control-vector-layers",
            metavar="FIRST:LAST",
            help="Add control vectors after these layers only; the first layer is 0.",
        ),
    ] = None
    speculative: Annotated[
        Speculation | None,
        Option(
            "--speculative",
            metavar="mtp",
            help="Guess tokens by a block of the model for multi-token prediction: same text, fewer steps.",
        ),
    ] = None
    stats: Annotated[
        bool | None, Option("--stats/--no-stats", help="Show tokens/s.", show_default="on a terminal")
    ] = None
    verbose: Annotated[
        bool,
        Option(
            "--verbose",
            "-v",
            callback=_log_what_is_done,
            help="Log what is done, such as why steps of decoding run in Python.",
        ),
    ] = False
    debug: DebugOption = False

    @property
    def wants_stats(self) -> bool:
        """Whether to show the speed of answers; by default only on a terminal."""
        return sys.stderr.isatty() if self.stats is None else self.stats

    def generation_config(self, stated: Mapping[str, Any] = MappingProxyType({})) -> "GenerationConfig":
        """Return the options for choosing tokens.

        Args:
            stated: what the model states of them. The user's options override it, and it overrides the
                defaults.

        Raises:
            typer.BadParameter: a value is invalid.
        """
        from torchgguf.generation import GenerationConfig

        said = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        settings = {name: said.get(name, stated.get(name, default)) for name, default in _SAMPLING.items()}
        draws = settings["temperature"] != 0 and ("temperature" in said or stated.get("do_sample", True))
        penalty = {"repetition_penalty": settings["repetition_penalty"]}
        with wrong_usage():
            return GenerationConfig(
                do_sample=draws, stop_strings=self.stop, **(settings if draws else penalty)
            )


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `options: Options` of a command by command line options, one for each field."""
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
