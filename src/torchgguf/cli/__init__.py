"""The command line, `torchgguf COMMAND ...`: one module a command, imported when it is used.

Standard output holds what was asked for; everything else goes to standard error. Errors are one line. Exit
codes: 0 done, 1 error, 2 wrong usage, 130 ended by Ctrl-C.
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
from typer.core import TyperGroup

from torchgguf.cli.options import DEBUG, DebugOption
from torchgguf.cli.terminal import one_line

COMMANDS = ("run", "chat", "info", "metadata", "split", "merge", "imatrix", "quantize", "convert")
USAGE, INTERRUPTED = 2, 130
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

# Typer keeps click's exceptions to itself, but for the one that every wrong usage is a relative of.
UsageError: Any = typer.BadParameter.__base__


class Commands(TyperGroup):
    """Commands that are imported by name, so that none waits for another's imports."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command that is the module's function of that name, with `_command` behind it."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"torchgguf.cli.{cmd_name}")
        single = typer.Typer(add_completion=False, context_settings=HELP_OPTIONS, rich_markup_mode="markdown")
        single.command(cmd_name)(getattr(module, f"{cmd_name}_command"))
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
    """Run, inspect, make and convert language models in GGUF files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if None); return the exit code."""
    # Threads that spin for long while they wait make all crawl on a machine that others use too; none at all
    # would cost an idle machine a third of its speed. OpenMP reads it when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its client tells of every retry, in two lines
    _replace_closed_streams()
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # not all of its bars see it by themselves
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    logging.basicConfig(format="warning: %(message)s")
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
        _complain(f"{error.format_message()} ('{command} --help' lists what there is)")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt gets a line of its own
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough. What is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if meta.get(DEBUG):
            traceback.print_exc()
        else:
            _complain(_message(error))
        return 1


def _replace_closed_streams() -> None:
    """Where the shell closed a stream (`>&-`) Python has None, with which not even errors can be told."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 (open to the end)


def _message(error: Exception) -> str:
    """What an exception says, if it was written for people; else its name as well."""
    from torchgguf.container import GGUFError

    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (GGUFError, OSError, ValueError)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _complain(message: str) -> None:
    print(f"error: {one_line(message)}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {one_line(str(message))}", file=sys.stderr)
