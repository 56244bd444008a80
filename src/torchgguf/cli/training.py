"""What `torchgguf finetune` shows, and what it writes."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgguf.cli.options import split_place
from torchgguf.cli.terminal import note, one_line, progress_bar
from torchgguf.hub import find_gguf
from torchgguf.models.blocks.losses import IGNORED
from torchgguf.models.io.opening import is_gguf
from torchgguf.tokenization import Tokenizer
from torchgguf.training.adapters import save_adapter
from torchgguf.training.data import TrainingData
from torchgguf.training.loop.plots import can_draw, draw_losses, text_plot
from torchgguf.training.loop.run import Progress, TrainingRun
from torchgguf.training.lora import merge_and_unload
from torchgguf.training.merging import merge_into_gguf

_LINES = 10  # of progress, where there is no terminal


def check_data(data: TrainingData, strict: bool) -> None:
    """Show, in the first process, what is wrong with data, and how much there is to learn.

    Raises:
        ValueError: something is wrong, and `strict` is set.
    """
    for line in data.problems.lines():
        _note(f"warning: {one_line(line)}")
    if strict and data.problems:
        raise ValueError(f"the data have {len(data.problems)} problems, which --strict refuses")
    items = data.everything()
    tokens, learnt = sum(item.length for item in items), sum(item.trained for item in items)
    kind = "pairs" if data.is_preference else "samples"
    counts = f"{len(items)} {kind} ({len(data.held_out)} held out)"
    _note(f"{counts}, {tokens:,} tokens, {learnt:,} of them to learn")


def _note(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        note(text)


def show_first(data: TrainingData, tokenizer: Tokenizer) -> None:
    """Print the first sample, or pair, with what is learnt between « and »."""
    for sample in data.everything()[0].samples:
        text, before = "", False
        for token, label in zip(sample.input_ids, sample.labels, strict=True):
            learnt = label != IGNORED
            text += {(False, True): "«", (True, False): "»"}.get((before, learnt), "")
            text += tokenizer.decode([token])
            before = learnt
        lines = (text + "»" * before).split("\n")
        print("\n".join(map(one_line, lines)))


def train(run: TrainingRun, folder: Path) -> None:
    """Train, with a bar of progress on a terminal, and some lines elsewhere; plot the losses.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the training; a checkpoint was written.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    quiet = not run.processes.is_main
    if not quiet and run.settings.packing and not run.packs:
        note("The model has recurrent layers, which do not support packing: samples are padded.")
    if not quiet and run.step:
        note(f"Resumed after step {run.step} of {run.steps}.")
    every = max(1, run.steps // _LINES)
    bar = tqdm(total=run.steps, initial=run.step, desc="training", unit="step", disable=quiet or None)

    def show(done: Progress) -> None:
        losses = f"loss {done.loss:.4f}"
        if done.held_out is not None:
            losses += f", held out {done.held_out:.4f}"
        speed = f"{done.tokens_per_second:,.0f} tokens/s"
        bar.set_postfix_str(f"{losses}, {speed}", refresh=False)
        bar.update()
        if not sys.stderr.isatty() and (done.step % every == 0 or done.step == done.steps):
            note(f"step {done.step} of {done.steps}: {losses}, {speed}")

    with bar:
        finished = run.train(show)
    if quiet:
        return
    if can_draw():
        plot = folder / "loss.png"
        draw_losses(run.history, plot)
        note(f"{one_line(str(plot))}: the losses")
    else:
        note("\n".join(text_plot(run.history)))
    if not finished:
        note(f"Stopped after step {run.step} of {run.steps}: --resume continues.")
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Output:
    """What is written.

    Attributes:
        file: the model that was trained.
        path: the file or folder to write.
        folder: of the run.
        full: whether all weights were trained.
        adapter_only: whether a GGUF file is to contain the adapter alone.
        quantization: type of changed tensors, or None.
    """

    file: str
    path: Path
    folder: Path
    full: bool
    adapter_only: bool
    quantization: str | None


def write(output: Output, model: Any, tokenizer: Tokenizer) -> None:
    """Write a trained model, or its adapter; an older file is replaced when the new one is complete."""
    if output.full:
        with progress_bar("writing") as progress:
            model.save_gguf(output.path, tokenizer, quantization=output.quantization, progress=progress)
    elif output.adapter_only or output.path.suffix != ".gguf":
        save_adapter(model, output.path)
    elif Path(output.file).is_dir() and not is_gguf(Path(output.file)):
        merge_and_unload(model).save_gguf(  # type: ignore[operator]
            output.path, tokenizer, quantization=output.quantization
        )
    else:
        adapter = output.folder / "adapter"
        save_adapter(model, adapter)
        base = find_gguf(*split_place(output.file))
        with progress_bar("merging") as progress:
            merge_into_gguf(base, adapter, output.path, quantization=output.quantization, progress=progress)
    print(one_line(str(output.path)))
