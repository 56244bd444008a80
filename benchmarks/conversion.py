"""Peak memory of converting a Hugging Face model, measured from another process.

A model is a config.json here: `python -m benchmarks.conversion CONFIG FOLDER` creates its folder, with random
weights, one file a layer. Models of two sizes have layers of one size, so peak memory should be the same.
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
    """Write a model's folder: the config, random weights, and a tokenizer trained on a text of the tests."""
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
    """Create a model's folder in another process; delete it after the block."""
    with TemporaryDirectory() as place:
        folder = Path(place, config.stem)
        subprocess.run([sys.executable, "-m", "benchmarks.conversion", config, folder], check=True)
        yield folder


def peak_memory(*arguments: object) -> float:
    """Return the peak memory of a Python process, in GB.

    It is at least the memory of this process, from which the other one starts: so this file imports little.

    Raises:
        RuntimeError: the process failed; the message contains its last line.
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
    """Measure converting to F16, and to Q4_K_M."""
    kinds = {"convert_f16": "F16", "convert_q4_k_m": "Q4_K_M"}
    with made(config) as folder:
        command = ("-m", "torchgguf", "convert", folder, folder / "x.gguf", "--threads", threads, "-q")
        return {metric: [peak_memory(*command, kind)] for metric, kind in kinds.items()}


def llama_cpp_convert(config: Path, threads: int) -> dict[str, list[float]]:
    """Measure converting to F16 with llama.cpp's converter, which does not support recipes."""
    with made(config) as folder:
        command = (CONVERTER, folder, "--outtype", "f16", "--outfile", folder / "x.gguf")
        return {"convert_f16": [peak_memory(*command)]}


if __name__ == "__main__":
    make(*map(Path, sys.argv[1:]))
