"""`torchgguf run`: one prompt, one answer; for other tasks, one line of JSON for each input line."""

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgguf.cli.options import FILE_HELP, Options, split_place, with_options, wrong_usage
from torchgguf.cli.terminal import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchgguf.cli.session import Session

GENERATION = "text-generation"
QUESTIONS = "question-answering"
# Options that all tasks support.
_FOR_ALL_TASKS = {
    "device",
    "threads",
    "dtype",
    "dequantize",
    "no_mmap",
    "ignore_metadata",
    "verbose",
    "debug",
}

_File = Annotated[str | None, typer.Argument(metavar="FILE", help=FILE_HELP)]
_Prompt = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="The prompt; by default, or with '-', from standard input."),
]
_Model = Annotated[str | None, typer.Option("--model", metavar="FILE", help="The same as FILE.")]
_Task = Annotated[str, typer.Option("--task", metavar="TASK", help="The task, by the name of a pipeline.")]
_Context = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="TEXT", help="The text with the answers, for --task question-answering."
    ),
]
_Raw = Annotated[
    bool, typer.Option("--raw", help="Continue the text without the chat template of the model.")
]


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
    """Answer a prompt, or continue it if the model has no chat template.

    With `--task text-classification`, `token-classification`, `question-answering` or `feature-extraction`
    each line of the input is a separate text, and the answers are lines of JSON.
    """
    if model is not None:  # then the one argument is the prompt
        if prompt is not None:
            raise typer.BadParameter(f"the model must be named once, got {file} and --model {model}")
        file, prompt = model, file
    if file is None:
        raise typer.BadParameter("name a model: FILE, or --model FILE")
    if raw and options.system is not None:
        raise typer.BadParameter("--system requires a chat template, but --raw ignores it")
    if task != GENERATION:
        task = _other_task(task, raw, options)
    if (context is None) is (task == QUESTIONS):
        wish = f"{QUESTIONS} requires it" if context is None else f"only for {QUESTIONS}"
        raise typer.BadParameter(wish, param_hint="--context")
    text = _read_prompt() if prompt in (None, "-") else prompt
    if not (text if task == GENERATION else text.strip()):
        raise typer.BadParameter("the prompt is empty", param_hint="PROMPT")
    if task == GENERATION:
        _speak(file, text, raw, options)
    else:
        _work(task, file, text, context, options)


def _other_task(task: str, raw: bool, options: Options) -> str:
    """Return the full name of a task, after checking that it supports all given options."""
    from torchgguf.pipelines.factory import TASK_ALIASES, TASKS

    task = TASK_ALIASES.get(task, task)
    if task not in TASKS:
        raise typer.BadParameter(f"must be one of {', '.join((*TASKS, *TASK_ALIASES))}", param_hint="--task")
    own = [field for field in fields(Options) if field.name not in _FOR_ALL_TASKS]
    idle = [field.name for field in own if getattr(options, field.name) != field.default]
    for name in ["raw", *idle] if raw else idle:
        raise typer.BadParameter(f"only for {GENERATION}", param_hint=f"--{name.replace('_', '-')}")
    return task


def _speak(file: str, text: str, raw: bool, options: Options) -> None:
    """Print the answer, piece by piece while it is generated."""
    from torchgguf.cli.loading import start_session
    from torchgguf.cli.projectors import mention_projectors

    mention_projectors(file)
    session = start_session(file, options)
    for piece in _answer(session, text, options.system, raw):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()
    if options.wants_stats:
        note(str(session.stats))


def _work(task: str, file: str, text: str, context: str | None, options: Options) -> None:
    """Run another task on each line, and print each answer at once."""
    import torch

    from torchgguf.models.io.devices import available_device
    from torchgguf.pipelines import pipeline

    with wrong_usage():
        device = available_device(options.device or "cpu")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    place, gguf_file = split_place(file)
    worker = pipeline(
        task,
        place,
        gguf_file=gguf_file,
        device=device,
        dtype=None if options.dtype is None else str(options.dtype),
        model_kwargs={
            "dequantize": options.dequantize,
            "mmap": not options.no_mmap,
            "ignore_metadata": options.ignore_metadata or (),
        },
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
            raise ValueError("--system requires a chat template, but this model has none")
        return session.complete(text)
    first = [] if system is None else [{"role": "system", "content": system}]
    return session.reply([*first, {"role": "user", "content": text}])
