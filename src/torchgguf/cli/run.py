"""`torchgguf run`: one prompt, one answer; or, for other tasks, a line of JSON for each line read."""

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgguf.cli.options import FILE_HELP, Options, split_place, with_options
from torchgguf.cli.terminal import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchgguf.cli.session import Session

GENERATION = "text-generation"
QUESTIONS = "question-answering"
# What other tasks than generation make something of.
_FOR_ALL_TASKS = {"device", "threads", "dtype", "dequantize", "debug"}

_File = Annotated[str | None, typer.Argument(metavar="FILE", help=FILE_HELP)]
_Prompt = Annotated[
    str | None, typer.Argument(metavar="PROMPT", help="What to say; '-' or nothing: read standard input.")
]
_Model = Annotated[str | None, typer.Option("--model", metavar="FILE", help="The same as FILE.")]
_Task = Annotated[str, typer.Option("--task", metavar="TASK", help="What to do, by the name of a pipeline.")]
_Context = Annotated[
    str | None, typer.Option("--context", help="The text that answers, for --task question-answering.")
]
_Raw = Annotated[bool, typer.Option("--raw", help="Continue the text, without the model's chat template.")]


@with_options
def run_command(
    file: _File = None,
    prompt: _Prompt = None,
    model: _Model = None,
    task: _Task = GENERATION,
    context: _Context = None,
    raw: _Raw = False,
    *,
    options: Options,
) -> None:
    """Answer a prompt, or continue it if the model knows no conversation.

    With `--task text-classification`, `token-classification`, `question-answering` or `feature-extraction`
    each line of the input is a text of its own, and the answers are lines of JSON.
    """
    if model is not None:  # then the one argument is the prompt
        if prompt is not None:
            raise typer.BadParameter(f"the model is given twice: {file} and --model {model}")
        file, prompt = model, file
    if file is None:
        raise typer.BadParameter("name a model: FILE, or --model FILE")
    if raw and options.system is not None:
        raise typer.BadParameter("--system is said through a chat template, and --raw does without one")
    if task != GENERATION:
        task = _other_task(task, raw, options)
    if (context is None) is (task == QUESTIONS):
        wish = "questions need a text to be answered from" if context is None else f"it is for {QUESTIONS}"
        raise typer.BadParameter(wish, param_hint="--context")
    text = _read_prompt() if prompt in (None, "-") else prompt
    if not (text if task == GENERATION else text.strip()):
        raise typer.BadParameter("the prompt is empty", param_hint="PROMPT")
    if task == GENERATION:
        _speak(file, text, raw, options)
    else:
        _work(task, file, text, context, options)


def _other_task(task: str, raw: bool, options: Options) -> str:
    """Return the task's own name, if there is one and nothing is asked for that is not for it."""
    from torchgguf.pipelines.factory import TASK_ALIASES, TASKS

    task = TASK_ALIASES.get(task, task)
    if task not in TASKS:
        raise typer.BadParameter(
            f"there is none but {', '.join((*TASKS, *TASK_ALIASES))}", param_hint="--task"
        )
    own = [field for field in fields(Options) if field.name not in _FOR_ALL_TASKS]
    idle = [field.name for field in own if getattr(options, field.name) != field.default]
    for name in ["raw", *idle] if raw else idle:
        raise typer.BadParameter(f"it is for {GENERATION}", param_hint=f"--{name.replace('_', '-')}")
    return task


def _speak(file: str, text: str, raw: bool, options: Options) -> None:
    """Answer, piece by piece as it comes."""
    from torchgguf.cli.loading import start_session

    session = start_session(file, options)
    for piece in _answer(session, text, options.system, raw):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()
    if options.wants_stats:
        note(str(session.stats))


def _work(task: str, file: str, text: str, context: str | None, options: Options) -> None:
    """Do another task for each line, and print its answer as soon as it is there."""
    import torch

    from torchgguf.pipelines import pipeline

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    place, gguf_file = split_place(file)
    worker = pipeline(
        task,
        place,
        gguf_file=gguf_file,
        device=options.device or "cpu",
        dtype=None if options.dtype is None else str(options.dtype),
        model_kwargs={"dequantize": options.dequantize},
    )
    lines: list[Any] = [line for line in text.splitlines() if line.strip()]
    if task == QUESTIONS:
        lines = [{"question": line, "context": context} for line in lines]
    for answer in worker(iter(lines)):
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def _read_prompt() -> str:
    if sys.stdin.isatty():
        note("Type the prompt; Ctrl-D ends it.")
    return sys.stdin.read().removesuffix("\n")


def _answer(session: "Session", text: str, system: str | None, raw: bool) -> "Iterator[str]":
    if raw or not session.has_chat_template:
        if system is not None:
            raise ValueError("--system is said through a chat template, and this model has none")
        return session.complete(text)
    first = [] if system is None else [{"role": "system", "content": system}]
    return session.reply([*first, {"role": "user", "content": text}])
