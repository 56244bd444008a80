"""The demo: load a real model from its GGUF file, generate, write the file back, compare both."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from fetch_models import QWEN2, SMOLLM2, FetchError, fetch_with_bar
from rich.console import Console
from rich.markup import escape

QUESTION = "Why is the sky blue? Answer in three sentences."
SNIPPET = """\
from torchgguf import AutoModelForCausalLM, AutoTokenizer

path = "{path}"
tok = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path)
out = model.generate(**tok("The capital of France is", return_tensors="pt"), max_new_tokens=20)
print(tok.decode(out[0]))"""
console = Console(highlight=False)


def resident() -> str:
    """Return the resident memory of this process, mapped files included."""
    status = Path("/proc/self/status")
    if not status.exists():
        return "unknown on this system"
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return f"{int(line.split()[1]) * 1024 / 1e6:.0f} MB"


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Print `what` with the seconds of the block and the remarks that it appends."""
    remarks: list[str] = []
    begin = perf_counter()
    with console.status(f"{what} …"):
        yield remarks
    seconds = f"{perf_counter() - begin:.2f} s"
    console.print(f"[green]✓[/] {what} [dim]{' · '.join([seconds, *remarks])}[/]")


def speak(tokenizer: Any, model: Any) -> None:
    """Stream the answer to QUESTION, through the model's own chat template, and print the speed."""
    from torchgguf import TextStreamer

    class Timed(TextStreamer):
        """Prints tokens as they come, and records the times of the prompt and of each token."""

        def put(self, value: Any) -> None:
            times.append(perf_counter())
            super().put(value)

    times: list[float] = []
    messages = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    console.print(f"\n[bold]{QUESTION}[/]")
    streamer = Timed(tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(**inputs, max_new_tokens=160, do_sample=False, streamer=streamer)
    tokens, seconds = len(times) - 2, times[-1] - times[1]
    console.print(f"[dim]{tokens} tokens, {tokens / seconds:.0f} tokens/s after the first[/]\n")


def sha256(path: Path) -> str:
    """Return the checksum of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(source: Path, copy: Path) -> list[str]:
    """Return the names of metadata keys and tensors that differ between both files, in type or in bytes."""
    import torch

    from torchgguf import open_gguf

    with open_gguf(source) as a, open_gguf(copy) as b:
        keys = [
            key
            for key in a.metadata.keys() | b.metadata.keys()
            if a.metadata.get(key) != b.metadata.get(key)
            or a.metadata.types.get(key) != b.metadata.types.get(key)
        ]
        tensors = [
            name
            for name in a.tensors.keys() | b.tensors.keys()
            if name not in a.tensors
            or name not in b.tensors
            or a.tensors[name].type != b.tensors[name].type
            or a.tensors[name].shape != b.tensors[name].shape
            or not torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8))
        ]
        return sorted(keys) + sorted(tensors)


def write_back(tokenizer: Any, model: Any) -> None:
    """Write the model to a new file, and compare it with its source; exit if they differ."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "again.gguf"
        with step("wrote it to a new GGUF file") as remarks:
            model.save_gguf(copy, tokenizer=tokenizer)
            remarks.append(f"{copy.stat().st_size / 1e6:.0f} MB")
        with step("compared every metadata value and every tensor's bytes"):
            different = differences(SMOLLM2, copy)
        checksums = [sha256(SMOLLM2), sha256(copy)]
    if different:
        sys.exit(f"the new file differs in {', '.join(different[:5])}")
    same = (
        "the very same file, by sha256"
        if checksums[0] == checksums[1]
        else "the same model, stored otherwise"
    )
    console.print(
        f"[green]✓[/] [bold]identical[/]: {same}\n  source {checksums[0]}\n  copy   {checksums[1]}\n"
    )


def what_next() -> None:
    """Print commands and lines of Python to try next."""
    path = f"~/{SMOLLM2.relative_to(Path.home())}" if SMOLLM2.is_relative_to(Path.home()) else str(SMOLLM2)
    fetched = "" if QWEN2.exists() else "   (fetches 478 MB)"
    console.print("[bold]Try next[/]")
    for line in (
        f".venv/bin/torchgguf chat {path}",
        f'.venv/bin/torchgguf run {path} "Once upon a time"',
        f".venv/bin/torchgguf info {path}",
        f".venv/bin/python scripts/fetch_models.py qwen2{fetched}",
        "make bench",
    ):
        console.print(f"  [cyan]{escape(line)}[/]", soft_wrap=True)
    console.print("\nor, in .venv/bin/python:\n")
    console.print(SNIPPET.format(path=SMOLLM2), style="cyan", markup=False, soft_wrap=True)


def main() -> None:
    """Run the demo from beginning to end."""
    fetch_with_bar("smollm2")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it, for the same reason
    with step("imported torch and torchgguf"):
        from torchgguf import AutoModelForCausalLM, AutoTokenizer
    before = resident()
    with step(f"loaded {SMOLLM2.name}, packed") as remarks:
        tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
        model = AutoModelForCausalLM.from_pretrained(SMOLLM2)
        remarks.append(f"{SMOLLM2.stat().st_size / 1e6:.0f} MB file")
    speak(tokenizer, model)
    console.print(f"[green]✓[/] memory: {resident()} now, {before} of it before the model was loaded")
    write_back(tokenizer, model)
    what_next()


if __name__ == "__main__":
    try:
        main()
    except FetchError as error:
        sys.exit(f"cannot fetch the model: {error}")
    except OSError as error:
        sys.exit(f"the demo failed: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted")
