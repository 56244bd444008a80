"""`torchgguf run`: one prompt, one answer."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from torchgguf.cli.options import File, Options, with_options
from torchgguf.cli.terminal import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchgguf.cli.session import Session

Prompt = Annotated[str | None, typer.Argument(help="What to say; '-' or nothing: read standard input.")]
Raw = Annotated[bool, typer.Option("--raw", help="Continue the text, without the model's chat template.")]


@with_options
def run(file: File, prompt: Prompt = None, raw: Raw = False, *, options: Options) -> None:
    """Answer a prompt, or continue a text if the model knows no conversation."""
    if raw and options.system is not None:
        raise typer.BadParameter("--system is said through a chat template, and --raw does without one")
    text = _read_prompt() if prompt in (None, "-") else prompt
    if not text:
        raise typer.BadParameter("the prompt is empty", param_hint="PROMPT")
    from torchgguf.cli.session import Session

    session = Session(file, options)
    for piece in _answer(session, text, raw):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()
    if options.stats or (options.stats is None and sys.stderr.isatty()):
        note(str(session.stats))


def _read_prompt() -> str:
    if sys.stdin.isatty():
        note("Type the prompt; Ctrl-D ends it.")
    return sys.stdin.read().removesuffix("\n")


def _answer(session: "Session", text: str, raw: bool) -> "Iterator[str]":
    system = session.options.system
    if raw or not session.has_chat_template:
        if system is not None:
            raise ValueError("--system is said through a chat template, and this model has none")
        return session.complete(text)
    first = [] if system is None else [{"role": "system", "content": system}]
    return session.reply([*first, {"role": "user", "content": text}])
