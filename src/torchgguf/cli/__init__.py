"""The command line, `torchgguf COMMAND ...`: one module for each command, imported when it is used.

Results go to standard output, everything else to standard error. Errors are one line. Exit codes: 0 success,
1 error, 2 wrong usage, 130 stopped by Ctrl-C.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from torchgguf.cli.help import Command, CommandGroup
from torchgguf.cli.options import DEBUG, DebugOption
from torchgguf.cli.terminal import one_line

COMMANDS = (
    "run",
    "chat",
    "embed",
    "info",
    "metadata",
    "split",
    "merge",
    "imatrix",
    "quantize",
    "convert",
    "finetune",
)
USAGE, INTERRUPTED = 2, 130
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

# Typer does not export click's exceptions, except for a subclass of the one for wrong usage.
UsageError: Any = typer.BadParameter.__base__


class Commands(CommandGroup):
    """Commands that are imported by name, so that none waits for the imports of another."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command: the function `NAME_command` of the module `NAME`."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"torchgguf.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, context_settings=HELP_OPTIONS, rich_markup_mode=None)
        single.command(cmd_name, cls=Command)(getattr(module, f"{cmd_name}_command"))
        return typer.main.get_command(single)


app = typer.Typer(cls=Commands, add_completion=False, context_settings=HELP_OPTIONS)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torchgguf {version('torchgguf')}")
        raise typer.Exit


@app.callback()
def torchgguf(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Run, inspect, create and convert language models in GGUF files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: the arguments; by default those of the process.

    Returns:
        The exit code.
    """
    # Long spinning of waiting threads slows down everything on a shared machine, but without spinning an idle
    # machine loses a third of its speed. OpenMP reads this when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its client logs every retry in two lines
    _replace_closed_streams()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # some of its bars do not check it
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    handler = logging.StreamHandler()
    handler.setFormatter(_LogLine())
    logging.basicConfig(handlers=[handler])
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    meta: dict[str, Any] = {}
    try:
        with typer.main.get_command(app).make_context("torchgguf", arguments) as context:
            meta = context.meta
            context.command.invoke(context)
            sys.stdout.flush()
        return 0
    except typer.Exit as exit:
        return int(exit.exit_code)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "torchgguf"
        _complain(f"{error.format_message()} (see '{command} --help')")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the prompt of the shell starts on a new line
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. Buffered output must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if meta.get(DEBUG):
            traceback.print_exc()
        else:
            _complain(_message(error))
        return 1


def _replace_closed_streams() -> None:
    """Replace streams that the shell closed (`>&-`): they are None, and even error messages would fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (stays open)


def _message(error: Exception) -> str:
    """Return the text of an exception for users; for unexpected exceptions with the name of the type."""
    if isinstance(error, ImportError):  # it names what to install or to set, and may come back below
        return str(error)
    from torchgguf.container import GGUFError

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (GGUFError, OSError, ValueError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (use --debug for a traceback)"


def _complain(message: str) -> None:
    print(f"error: {one_line(message)}", file=sys.stderr)


class _LogLine(logging.Formatter):
    """Log lines as those of warnings and errors: the level in small letters, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {one_line(str(message))}", file=sys.stderr)
