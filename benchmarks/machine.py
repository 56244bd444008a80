"""The machine and the software behind the figures."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

LIBRARIES = ("torchgguf", "torch", "transformers", "gguf", "xllamacpp")
FLAGS = r"avx2|fma|f16c|avx_vnni|avx512(f|bw|vl|_vnni|_bf16|_fp16)|amx_(bf16|int8)"


def memory_bandwidth(threads: int) -> float:
    """Measure the GB/s at which `threads` threads read memory: the best of five sums over 1 GiB."""
    import torch

    torch.set_num_threads(threads)
    words = torch.ones(1 << 27, dtype=torch.int64)
    seconds = []
    for _ in range(5):
        begin = perf_counter()
        words.sum()
        seconds.append(perf_counter() - begin)
    return words.nbytes / min(seconds) / 1e9


def llama_cpp_flags() -> str:
    """Return the CPU features that llama.cpp was built for, by its own names."""
    import xllamacpp

    info = xllamacpp.get_system_info()
    flags = re.findall(r"(\w+) = 1", info if isinstance(info, str) else info.decode())
    return " ".join(flag for flag in flags if flag not in ("SSE3", "SSSE3", "AVX"))


def describe(threads: int) -> dict[str, str]:
    """Describe the machine and the software, in one line each."""
    import torchgguf._native as _native

    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", cpuinfo)
    name = model[1] if model else platform.machine()
    flags = re.search(r"flags\s*:\s*(.*)", cpuinfo)
    known = [flag for flag in (flags[1].split() if flags else ()) if re.fullmatch(FLAGS, flag)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "CPU": f"{name}, {os.cpu_count()} cores; {' '.join(sorted(known))}",
        "threads": str(threads),
        "memory": f"{memory:.0f} GB, read at {memory_bandwidth(threads):.1f} GB/s with these threads",
        "load before": "{:.1f} {:.1f} {:.1f} (1, 5, 15 minutes)".format(*os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "torchgguf's kernels": _native.isa(),
        "llama.cpp's kernels": f"the faster of: compiled for this CPU; prebuilt, {llama_cpp_flags()}",
    }
