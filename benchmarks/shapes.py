"""Speed on random weights of real shapes, where no model is public that the package registries have.

A shape is a config.json in `shapes/`. Its file is packed once to a type, without a vocabulary: the time does
not depend on which tokens are read. The peers are llama-bench and llama-batched-bench, compiled for this CPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.figures import (
    BATCH_PROMPT,
    DEPTH,
    LENGTHS,
    NEW_TOKENS,
    PEER_LENGTHS,
    PLACE_OF_SHAPES,
    SEQUENCES,
    depth_metric,
    prefill_metric,
    sequences_metric,
)
from benchmarks.llama_bench import one_sequence, together

PIECE = 512  # tokens read at once, as by `generate(prefill_chunk_size=512)` and by llama-bench

Samples = dict[str, list[float]]


def file_of(config: Path) -> Path:
    """Return the packed file of a shape; another process writes it if it does not exist.

    The environment variable TYPE names the type, by default Q4_K_M.
    """
    type_name = os.environ.get("TYPE", "Q4_K_M")
    file = PLACE_OF_SHAPES / f"{config.stem}-{type_name}.gguf"
    if not file.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.shapes", config, file, type_name], check=True)
    return file


def write(config: Path, file: Path, type_name: str) -> None:
    """Write the file of a shape."""
    import torch

    from torchgguf import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save_gguf(file, metadata={"tokenizer.ggml.model": "none"}, quantization=type_name)


class PackedShape:
    """The packed model of a shape, and the seconds that it takes."""

    def __init__(self, config: Path, threads: int) -> None:
        """Load the model, and let it read something."""
        import torch

        from torchgguf import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self.model: Any = AutoModelForCausalLM.from_pretrained(file_of(config))
        self.prefill(16)

    def prefill(self, length: int) -> tuple[float, Any]:
        """Return the seconds for a prompt of a length, and the cache."""
        import torch

        from torchgguf import DynamicCache

        tokens, cache = self.prompts(1, length), DynamicCache()
        with torch.inference_mode():
            begin = perf_counter()
            for piece in tokens.split(PIECE, dim=1):
                self.model(piece, cache=cache, logits_to_keep=1)
            return perf_counter() - begin, cache

    def prompts(self, rows: int, length: int) -> Any:
        """Return tokens, `(rows, length)`."""
        import torch

        return (torch.arange(length)[None] % self.model.config.vocab_size).repeat(rows, 1)

    def decode(self, rows: int = 1, length: int = 8, cache: Any = None) -> float:
        """Return the tokens per second of all rows, after prompts of a length."""
        times: list[float] = []

        class Clock:
            def put(self, _: object) -> None:
                times.append(perf_counter())

            def end(self) -> None: ...

        self.model.generate(
            self.prompts(rows, length),
            max_new_tokens=NEW_TOKENS + 1,
            min_new_tokens=NEW_TOKENS + 1,
            do_sample=False,
            streamer=Clock(),
            cache=cache,
            eos_token_id=None,
        )
        return rows * NEW_TOKENS / (times[-1] - times[-1 - NEW_TOKENS])


def torchgguf_shape(config: Path, threads: int) -> Samples:
    """Measure the packed model: decoding, and prompts of several lengths."""
    shape = PackedShape(config, threads)
    samples: Samples = {"decode": [shape.decode() for _ in range(2)]}
    for length in LENGTHS:
        repeats = 2 if length < 4096 else 1
        samples[prefill_metric(length)] = [length / shape.prefill(length)[0] for _ in range(repeats)]
    return samples


def llama_bench_shape(config: Path, threads: int) -> Samples:
    """Measure the same with llama-bench."""
    found = one_sequence(file_of(config), threads, PEER_LENGTHS)
    return {prefill_metric(n) if n else "decode": speeds for (n, _), speeds in found.items()}


def torchgguf_typed_shape(config: Path, threads: int) -> Samples:
    """Measure the packed model: decoding, also late in a text and of several sequences, and prompts."""
    shape = PackedShape(config, threads)
    samples: Samples = {"decode": [shape.decode() for _ in range(2)]}
    for length in PEER_LENGTHS:
        samples[prefill_metric(length)] = [length / shape.prefill(length)[0]]
    _, cache = shape.prefill(DEPTH)
    samples[depth_metric()] = [shape.decode(1, DEPTH + 1, cache)]
    for count in SEQUENCES:
        samples[sequences_metric(count)] = [shape.decode(count, BATCH_PROMPT)]
    return samples


def llama_bench_typed_shape(config: Path, threads: int) -> Samples:
    """Measure the same with llama-bench and llama-batched-bench."""
    file = file_of(config)
    found = one_sequence(file, threads, PEER_LENGTHS, (0, DEPTH))
    samples = {prefill_metric(n) if n else "decode": speeds for (n, d), speeds in found.items() if d == 0}
    samples[depth_metric()] = found[0, DEPTH]
    speeds = together(file, threads, SEQUENCES)
    return {**samples, **{sequences_metric(count): [speed] for count, speed in speeds.items()}}


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
