"""How much memory it takes to convert a Hugging Face model, measured from outside.

A model here is a config.json: `python -m benchmarks.conversion CONFIG FOLDER` makes a folder of it, with
random weights, one file a layer. Models of two sizes have layers of one size: what is in memory at a time
need not grow.
"""

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import CONVERTER

TEXT = Path(__file__).parent.parent / "tests" / "data" / "gpl-3.0.txt"


def make(config: Path, folder: Path) -> None:
    """Write a folder with all that a model has: random weights, and a tokenizer of a text that is at hand."""
    import sentencepiece
    import torch
    from safetensors.torch import save_file

    from torchgguf.models import AutoConfig, AutoModelForCausalLM

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(config.read_bytes())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))
    index: dict[str, str] = {}
    layers: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters():
        layers.setdefault(".".join(name.split(".")[:3]), {})[name] = parameter.shape
    for number, shapes in enumerate(layers.values(), 1):
        file = f"model-{number:05}-of-{len(layers):05}.safetensors"
        tensors = {name: torch.randn(shape).mul_(0.02).bfloat16() for name, shape in shapes.items()}
        save_file(tensors, folder / file, {"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.read_text().splitlines()),
        model_writer=pieces,
        vocab_size=model.config.vocab_size,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(pieces.getvalue())


@contextmanager
def made(config: Path) -> Iterator[Path]:
    """Have a model's folder for the length of a block, made by a process of its own."""
    with TemporaryDirectory() as place:
        folder = Path(place, config.stem)
        subprocess.run([sys.executable, "-m", "benchmarks.conversion", config, folder], check=True)
        yield folder


def peak_memory(*arguments: object) -> float:
    """The most memory that a Python process had, in GB; RuntimeError with its last words if it fails.

    It is no less than what this process has, which becomes the other one: so little is imported here.
    """
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace").strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {said[-1] if said else process.returncode}")
    return usage.ru_maxrss * 1024 / 1e9


def torchgguf_convert(config: Path, threads: int) -> dict[str, list[float]]:
    """Convert to halves, and to a recipe."""
    kinds = {"convert_f16": "F16", "convert_q4_k_m": "Q4_K_M"}
    with made(config) as folder:
        command = ("-m", "torchgguf", "convert", folder, folder / "x.gguf", "--threads", threads, "-q")
        return {metric: [peak_memory(*command, kind)] for metric, kind in kinds.items()}


def llama_cpp_convert(config: Path, threads: int) -> dict[str, list[float]]:
    """Convert to halves by llama.cpp's converter, which knows no recipes."""
    with made(config) as folder:
        command = (CONVERTER, folder, "--outtype", "f16", "--outfile", folder / "x.gguf")
        return {"convert_f16": [peak_memory(*command)]}


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
