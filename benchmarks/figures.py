"""The table of figures: the workers that measure each side, and the goal."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from fetch_models import LLAMA_CPP as LLAMA_CPP_SOURCES, QWEN2, SMOLLM2

from build_llama_cpp import (  # isort: skip
    BATCHED_NATIVE as BATCHED_NATIVE,
    BENCH_NATIVE as BENCH_NATIVE,
    COMPLETION_NATIVE as COMPLETION_NATIVE,
    GGML,
    GGML_NATIVE,
)

OURS = "torchgguf"
RANDOM = Path(__file__).parent / "models"
CONVERTER = LLAMA_CPP_SOURCES / "convert_hf_to_gguf.py"
SHAPES = Path(__file__).parent / "shapes"
PLACE_OF_SHAPES = LLAMA_CPP_SOURCES.parent / "shapes"
# Models with recurrent layers, for which reading a token costs the same wherever it is in the text.
RECURRENT_SHAPES = ("lfm2-350M", "qwen3.5-0.8B", "nemotron-h-1B")
NEW_TOKENS = 64
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
# Several sequences together, each after a prompt of so many tokens.
SEQUENCES = (4, 8, 16)
BATCH_PROMPT = 128
DEPTH = 4096  # tokens in the cache before decoding
# A dense model and a mixture of experts, in several types.
TYPED_SHAPES = {
    "qwen2-1.5B": ("Q4_K_M", "Q8_0", "Q6_K", "Q4_0", "IQ4_XS", "Q2_K"),
    "mixtral-1B-2-of-16": ("Q4_K_M",),
}
PEER_LENGTHS = (512, 4096)  # of prompts that the peer reads, too: each takes it minutes
PACKED_TYPES = ("Q4_K", "Q6_K", "Q8_0", "IQ4_XS", "IQ2_XS", "IQ3_S")
# llama.cpp compiles ggml's packing for all CPUs of this kind; compiled for this CPU, it may be faster.
GGML_BUILDS = {"as built": GGML, "native": GGML_NATIVE}


@dataclass(frozen=True)
class Worker:
    """One process that measures: a function of `workers.py` and its environment."""

    function: str
    environment: tuple[tuple[str, str], ...] = ()
    slow: bool = False
    """Takes minutes: runs in one round only, and not in quick runs."""


@dataclass(frozen=True)
class Goal:
    """The value to reach: `limit`, or `limit` times the value of the side `of`."""

    limit: float
    of: str | None = None


@dataclass(frozen=True)
class Figure:
    """One comparison. If several workers measure a side, the best one counts."""

    title: str
    unit: str
    metric: str
    """The key under which the workers of all sides report it."""
    model: Path
    sides: Mapping[str, tuple[Worker, ...]] = field(hash=False)
    higher_is_better: bool = False
    goal: Goal | None = None


# OpenMP threads spin while they wait. That is fastest on an idle machine and very slow on a busy one, so both
# sides run with spinning and with sleeping threads, and the better result counts.
SLEEPING = (("OMP_WAIT_POLICY", "passive"),)
# The prebuilt wheel, and the same compiled for this CPU: the faster one counts.
LLAMA_CPP = (Worker("llama_cpp", SLEEPING), Worker("llama_cpp"), Worker("llama_bench"))
PACKED = (Worker("torchgguf_packed", SLEEPING), Worker("torchgguf_packed"))
# Too slow to measure twice; its steps are so long that waiting between them hardly matters.
TRANSFORMERS = (Worker("transformers_fp32", SLEEPING, slow=True),)

ALL = {OURS: PACKED, "transformers": TRANSFORMERS, "llama.cpp": LLAMA_CPP}
SPEED = {OURS: PACKED, "llama.cpp": LLAMA_CPP}
FIDELITY = {
    OURS: (Worker("torchgguf_fidelity", SLEEPING, slow=True),),
    "llama.cpp": (Worker("llama_cpp_fidelity", SLEEPING, slow=True),),
}


def fidelity(model: Path) -> tuple[Figure, ...]:
    """List the figures of how near to FP32 a packed model computes."""
    return (
        Figure(
            "KL divergence from FP32, prefill", "nats", "kl", model, FIDELITY, goal=Goal(1.0, "llama.cpp")
        ),
        Figure("KL divergence from FP32, decode", "nats", "kl_decode", model, FIDELITY),
        Figure("same top token as FP32", "%", "same_top", model, FIDELITY, True),
    )


def conversion(config: Path) -> tuple[Figure, ...]:
    """List the figures of peak memory in converting a Hugging Face model of this config."""
    ours = {OURS: (Worker("torchgguf_convert", slow=True),)}
    both = {**ours, "llama.cpp": (Worker("llama_cpp_convert", slow=True),)}
    goal = Goal(0.5)
    return (
        Figure("peak memory, converting to F16", "GB", "convert_f16", config, both, goal=goal),
        Figure("peak memory, converting to Q4_K_M", "GB", "convert_q4_k_m", config, ours, goal=goal),
    )


def packing_metric(type_name: str, weighted: bool) -> str:
    """Return the key of a type's packing speed, which is also the title of its figure."""
    return f"packing to {type_name}{', importances' if weighted else ''}"


def packing(model: Path) -> tuple[Figure, ...]:
    """List the figures of packing speed."""
    builds = tuple(Worker("ggml_packing", (("GGML", build),)) for build in GGML_BUILDS)
    ours = (Worker("torchgguf_packing", SLEEPING), Worker("torchgguf_packing"))
    sides = {OURS: ours, "llama.cpp": builds}
    titles = [packing_metric(name, weighted) for name in PACKED_TYPES for weighted in (False, True)]
    return tuple(
        Figure(title, "M/s", title, model, sides, True, Goal(1.0, "llama.cpp"))
        for title in titles
        if title != packing_metric("IQ2_XS", False)  # requires importances
    )


def prefill_metric(length: int) -> str:
    """Return the key of the speed of reading so many tokens, which is also the title of its figure."""
    return f"prefill, {length:,} tokens"


def shape(name: str) -> tuple[Figure, ...]:
    """List the figures of a model of real shapes and random weights."""
    sides = {
        OURS: (Worker("torchgguf_shape", slow=True),),
        "llama.cpp": (Worker("llama_bench_shape", slow=True),),
    }
    config = SHAPES / f"{name}.json"
    decode = Figure("decode, 64 tokens", "tok/s", "decode", config, sides, True, Goal(1.2, "llama.cpp"))
    metrics = (prefill_metric(length) for length in LENGTHS)
    return decode, *(
        Figure(metric, "tok/s", metric, config, sides, True, Goal(1.5, "llama.cpp")) for metric in metrics
    )


def training(model: Path) -> tuple[Figure, ...]:
    """List the figures of a training step, `benchmarks/training.py`."""
    ours = (Worker("torchgguf_train", slow=True),)
    unpacked = (Worker("peft_train_fp32", slow=True),)
    peft = (*unpacked, Worker("peft_train_bf16", slow=True), Worker("peft_train_nf4", slow=True))
    sides, fp32 = {OURS: ours, "PEFT": peft}, {OURS: ours, "PEFT, FP32": unpacked}
    return (
        Figure("training, LoRA", "tok/s", "train", model, sides, True, Goal(2.0, "PEFT")),
        Figure("training, reading the same tokens", "tok/s", "train_prefill", model, {OURS: ours}, True),
        Figure("training, peak memory", "GB", "train_memory", model, fp32, goal=Goal(1 / 3, "PEFT, FP32")),
    )


def depth_metric() -> str:
    """Return the key of the speed of decoding after a long text, which is also the title of its figure."""
    return f"decode after {DEPTH:,} tokens"


def sequences_metric(count: int) -> str:
    """Return the key of the speed of several sequences together, which is also the title of its figure."""
    return f"decode, {count} sequences together"


def typed_shape(name: str, type_name: str) -> tuple[Figure, ...]:
    """List the figures of a model of real shapes and random weights, packed to a type."""
    packed = (("TYPE", type_name),)
    sides = {
        OURS: (Worker("torchgguf_typed_shape", packed, slow=True),),
        "llama.cpp": (Worker("llama_bench_typed_shape", packed, slow=True),),
    }
    config = SHAPES / f"{name}.json"
    metrics = {"decode": "decode, 64 tokens", depth_metric(): depth_metric()}
    metrics |= {(key := prefill_metric(length)): key for length in PEER_LENGTHS}
    metrics |= {(key := sequences_metric(count)): key for count in SEQUENCES}
    return tuple(
        Figure(f"{title}, {type_name}", "tok/s", key, config, sides, True, Goal(1.0, "llama.cpp"))
        for key, title in metrics.items()
    )


FIRST_TOKEN = {
    OURS: (Worker("torchgguf_first_token"),),
    "llama.cpp": (Worker("llama_cpp_first_token"),),
    "import torch": (Worker("import_torch"),),
}

FIGURES = (
    Figure(
        "open the file, all metadata",
        "s",
        "open",
        QWEN2,
        {OURS: (Worker("torchgguf_open"),), "gguf-py": (Worker("gguf_py_open", slow=True),)},
        goal=Goal(0.1),
    ),
    Figure("load tokenizer and model", "s", "load", QWEN2, ALL, goal=Goal(1.0)),
    Figure(
        "load model as FP32",
        "s",
        "load_fp32",
        QWEN2,
        {OURS: (Worker("torchgguf_fp32"),), "transformers": TRANSFORMERS},
        goal=Goal(3.0),
    ),
    Figure("peak memory, generating", "GB", "memory", QWEN2, ALL, goal=Goal(1.1)),
    Figure("decode, 64 tokens", "tok/s", "decode", QWEN2, ALL, True, Goal(0.8, "llama.cpp")),
    Figure("prefill, 512 tokens", "tok/s", "prefill", QWEN2, ALL, True, Goal(1.0, "llama.cpp")),
    *fidelity(QWEN2),
    *packing(QWEN2),
    Figure(
        "process to first token", "s", "first_token", SMOLLM2, FIRST_TOKEN, goal=Goal(1.2, "import torch")
    ),
    Figure("decode, 64 tokens", "tok/s", "decode", SMOLLM2, SPEED, True),
    Figure("prefill, 512 tokens", "tok/s", "prefill", SMOLLM2, SPEED, True),
    *fidelity(SMOLLM2),
    *(figure for name in RECURRENT_SHAPES for figure in shape(name)),
    *(
        figure
        for name, types in TYPED_SHAPES.items()
        for type_name in types
        for figure in typed_shape(name, type_name)
    ),
    # Models of random weights, whose layers differ in number, not in size: memory should be the same.
    *conversion(RANDOM / "llama-0.3GB.json"),
    *conversion(RANDOM / "llama-1.2GB.json"),
    *training(QWEN2),
    *training(SMOLLM2),
)
