"""Build llama.cpp's tools, and ggml as a library, for benchmarks and golden data; tests do not use them.

    python scripts/build_llama_cpp.py

About twelve minutes on two idle cores, once, in `~/.cache/torchgguf` (or under `$XDG_CACHE_HOME`). The
sources are fetched as the models are (fetch_models.py); cmake and ninja are those of this environment.
"""

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fetch_models import LLAMA_CPP, LLAMA_CPP_SOURCES, FetchError, fetch_with_bar, run_heard

BUILT = LLAMA_CPP.with_name(f"{LLAMA_CPP.name}-built")
TOOLS = ("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-gguf-split")
#: ggml's packing as llama.cpp builds it, for all x86 CPUs, and the same sources compiled for this CPU.
#: The speed of whole models is that of the build for this CPU.
BENCHES = ("llama-bench", "llama-batched-bench", "llama-completion")
BENCH_NATIVE, BATCHED_NATIVE, COMPLETION_NATIVE = (BUILT / "native" / name for name in BENCHES)
GGML, GGML_NATIVE = BUILT / "bin" / "libggml-base.so", BUILT / "native" / "libggml-base.so"

_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",  # so that the tools find their libraries after the move
    "BUILD_SHARED_LIBS": "ON",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
}
# A virtual machine may show a CPU with AMX, but not support its use.
_NO_AMX = ("-mno-amx-tile", "-mno-amx-int8", "-mno-amx-bf16") if platform.machine() == "x86_64" else ()

Advance = Callable[[int, int], object]
"""Called with the number of steps done and the number of all steps."""


class BuildError(RuntimeError):
    """llama.cpp could not be built; the message contains the reason."""


def run(command: list[str], advance: Advance) -> None:
    """Run a program of this environment or of the system; follow ninja's `[done/all]` in its output.

    Args:
        command: the name of the program, and its arguments.
        advance: called for each line with `[done/all]`.

    Raises:
        BuildError: the program is not installed, or failed.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise BuildError(f"{command[0]} is not installed; try: pip install cmake ninja")
    reason = ""

    def hear(line: str) -> None:
        nonlocal reason
        if match := re.match(r"\[(\d+)/(\d+)\]", line):
            advance(int(match[1]), int(match[2]))
        elif not reason and "error" in line.lower():
            reason = line.strip()

    if not run_heard([program, *command[1:]], {**os.environ, "PATH": path}, hear):
        raise BuildError(f"{command[0]} failed: {reason or 'there is no reason in its output'}")


def build(scratch: Path, targets: tuple[str, ...], flags: tuple[str, ...], advance: Advance) -> Path:
    """Configure and compile targets with compiler flags; return the folder with the results."""
    options = {**_OPTIONS, "CMAKE_C_FLAGS": " ".join(flags), "CMAKE_CXX_FLAGS": " ".join(flags)}
    settings = [f"-D{name}={value}" for name, value in options.items()]
    run(["cmake", "-G", "Ninja", "-S", str(LLAMA_CPP_SOURCES), "-B", str(scratch), *settings], advance)
    run(["cmake", "--build", str(scratch), "--target", *targets], advance)
    return scratch / "bin"


def build_with_bar() -> Path:
    """Build what does not exist yet, with a progress bar; return the folder with `bin` and `native`."""
    if all((BUILT / "native" / name).exists() for name in BENCHES):
        return BUILT
    shutil.rmtree(BUILT, ignore_errors=True)  # of a time when less was built
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    fetch_with_bar("llama.cpp-sources")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns) as progress,
        tempfile.TemporaryDirectory(prefix=".building-", dir=BUILT.parent) as folder,
    ):
        scratch, whole = Path(folder), Path(folder) / "whole"
        whole.mkdir()
        for name, targets, flags in (
            ("bin", (*TOOLS, "ggml-base"), _NO_AMX),
            ("native", ("ggml-base", *BENCHES), (*_NO_AMX, "-march=native")),
        ):
            task = progress.add_task(f"building llama.cpp ({name})", total=None)

            def advance(done: int, total: int, task=task) -> None:
                progress.update(task, completed=done, total=total)

            build(scratch / name, targets, flags, advance).rename(whole / name)
        whole.rename(BUILT)
    return BUILT


def main() -> int:
    """Build; return 1 if that failed, 130 if interrupted."""
    try:
        print(build_with_bar())
    except (BuildError, FetchError, OSError) as error:
        print(f"cannot build llama.cpp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; no partial files are left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
