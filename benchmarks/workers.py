"""Measurements of one process: `python -m benchmarks.workers FUNCTION MODEL THREADS` prints one JSON object.

A worker is a function from the model's path and the number of threads to samples by metric. Each runs in its
own process, so that peak memory, imports and warm caches do not depend on other workers. For the same reason
libraries are imported inside the workers, always before the clock starts.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import conversion, fidelity, first_token, llama_bench, packing, shapes, training
from benchmarks.figures import NEW_TOKENS
from benchmarks.memory import peak_memory

Samples = dict[str, list[float]]

PROMPT = "The history of the lighthouse begins"
LONG_PROMPT = list(range(1000, 1512))  # the time does not depend on which 512 tokens


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of one call, and its result."""
    begin = perf_counter()
    result = function()
    return perf_counter() - begin, result


class Clock:
    """A streamer that records the time of each token."""

    def __init__(self) -> None:
        """Start without tokens."""
        self.times: list[float] = []

    def put(self, _: object) -> None:
        """Record the time of one token (or of the prompt, which comes first)."""
        self.times.append(perf_counter())

    def end(self) -> None:
        """Do nothing: the last token is recorded."""


def generation(tokenizer: Any, model: Any, repeats: int) -> Samples:
    """Measure speed and memory of `generate`, whose arguments torchgguf and transformers share."""
    import torch

    def generate(ids: torch.Tensor, count: int) -> list[float]:
        clock = Clock()
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, streamer=clock)
        times = clock.times[1:]
        assert len(times) == count, f"the model must generate {count} tokens, got {len(times)}"
        return times

    prompt = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    long_prompt = torch.tensor([LONG_PROMPT])
    generate(prompt, 4)
    samples: Samples = {"decode": [], "prefill": []}
    for _ in range(repeats):
        # From the first token to the 65th there are 64 steps, without the time of the prompt.
        times = generate(prompt, NEW_TOKENS + 1)
        samples["decode"].append(NEW_TOKENS / (times[-1] - times[0]))
    samples["memory"] = [peak_memory()]
    for _ in range(repeats):
        seconds, _times = timed(lambda: generate(long_prompt, 1))
        samples["prefill"].append(len(LONG_PROMPT) / seconds)
    return samples


def torchgguf_open(model: Path, threads: int) -> Samples:
    """Open the file and read every metadata value."""
    from torchgguf import open_gguf

    def read() -> int:
        with open_gguf(model) as file:
            return len(dict(file.metadata)) + len(file.tensors)

    return {"open": [timed(read)[0] for _ in range(5)]}


def gguf_py_open(model: Path, threads: int) -> Samples:
    """Open the file and read every metadata value with the reader of the `gguf` package."""
    from gguf import GGUFReader

    def read() -> int:
        reader = GGUFReader(model)
        return len({name: field.contents() for name, field in reader.fields.items()}) + len(reader.tensors)

    return {"open": [timed(read)[0]]}


def hugging_face_load(library: Any, model: Path, **options: Any) -> tuple[float, float, Any, Any]:
    """Return seconds for the tokenizer, seconds for the model, and both, by names that libraries share."""
    folder, name = model.parent, model.name
    auto_tokenizer, auto_model = library.AutoTokenizer, library.AutoModelForCausalLM  # may import lazily
    tokenizer_seconds, tokenizer = timed(lambda: auto_tokenizer.from_pretrained(folder, gguf_file=name))
    model_seconds, module = timed(lambda: auto_model.from_pretrained(folder, gguf_file=name, **options))
    return tokenizer_seconds, model_seconds, tokenizer, module


def torchgguf_packed(model: Path, threads: int) -> Samples:
    """Load packed, and generate."""
    import torch

    import torchgguf

    torch.set_num_threads(threads)
    tokenizer_seconds, model_seconds, tokenizer, module = hugging_face_load(torchgguf, model)
    return {"load": [tokenizer_seconds + model_seconds], **generation(tokenizer, module, repeats=2)}


def torchgguf_fp32(model: Path, threads: int) -> Samples:
    """Load as plain FP32 parameters."""
    import torch

    import torchgguf

    torch.set_num_threads(threads)
    options = {"dequantize": True, "dtype": torch.float32}
    return {"load_fp32": [hugging_face_load(torchgguf, model, **options)[1]]}


def transformers_fp32(model: Path, threads: int) -> Samples:
    """Load with transformers, which dequantizes to FP32, and generate."""
    import torch
    import transformers

    for module_name in ("modeling_gguf_pytorch_utils", "models.qwen2.modeling_qwen2"):
        importlib.import_module(f"transformers.{module_name}")
    torch.set_num_threads(threads)
    tokenizer_seconds, model_seconds, tokenizer, module = hugging_face_load(
        transformers, model, dtype=torch.float32
    )
    loads = {"load": [tokenizer_seconds + model_seconds], "load_fp32": [model_seconds]}
    return {**loads, **generation(tokenizer, module, repeats=1)}


def llama_cpp(model: Path, threads: int) -> Samples:
    """Load with llama.cpp (prebuilt in `xllamacpp`), and generate; speeds are those of its own clocks."""
    seconds, server = timed(lambda: fidelity.llama_cpp_server(model, threads))
    samples: Samples = {"load": [seconds], "decode": [], "prefill": []}

    def complete(prompt: str | list[int], count: int) -> dict[str, float]:
        request = {"prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True}
        timings: dict[str, float] = server.handle_completions({**request, "cache_prompt": False})["timings"]
        assert timings["predicted_n"] == count
        return timings

    complete(PROMPT, 4)
    for _ in range(2):
        # llama.cpp's clock starts at the first token, too: its 65 tokens are 64 steps.
        samples["decode"].append(NEW_TOKENS / complete(PROMPT, NEW_TOKENS + 1)["predicted_ms"] * 1000)
    samples["memory"] = [peak_memory()]
    for _ in range(2):
        timings = complete(LONG_PROMPT, 1)
        assert timings["prompt_n"] == len(LONG_PROMPT)
        samples["prefill"].append(len(LONG_PROMPT) / timings["prompt_ms"] * 1000)
    return samples


WORKERS: dict[str, Callable[[Path, int], Samples]] = {
    function.__name__: function
    for function in (
        torchgguf_open,
        torchgguf_packed,
        torchgguf_fp32,
        gguf_py_open,
        transformers_fp32,
        llama_cpp,
        fidelity.torchgguf_fidelity,
        fidelity.llama_cpp_fidelity,
        conversion.torchgguf_convert,
        conversion.llama_cpp_convert,
        packing.torchgguf_packing,
        packing.ggml_packing,
        shapes.torchgguf_shape,
        shapes.llama_bench_shape,
        training.torchgguf_train,
        training.peft_train_fp32,
        training.peft_train_bf16,
        training.peft_train_nf4,
        shapes.torchgguf_typed_shape,
        shapes.llama_bench_typed_shape,
        llama_bench.llama_bench,
        first_token.torchgguf_first_token,
        first_token.llama_cpp_first_token,
        first_token.import_torch,
    )
}

if __name__ == "__main__":
    name, path, thread_count = sys.argv[1:]
    print(json.dumps(WORKERS[name](Path(path), int(thread_count))))
