"""Run a target in processes that may crash, hang or use up their memory."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from pathlib import Path

from fuzz.targets import Target, put

SECONDS, MEGABYTES = 1.0, 50  # of the processor, and beyond the file: what docs/security.md promises
_PATIENCE = 20.0  # seconds without progress
_ROOM = 8 << 30  # bytes of addresses beyond those of a process that has just begun
_EACH = 500  # inputs of one process
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Findings:
    """The kinds of findings, one input of each.

    Args:
        folder: is created for the first finding.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds: dict[str, int] = {}

    def count(self, target: str) -> int:
        """Return the number of kinds of a target."""
        return sum(kind.startswith(f"{target}: ") for kind in self.kinds)

    def add(self, name: str, target: Target, seed: int, at: int, kind: str, reason: str) -> None:
        """Keep an input if it is the first of its kind."""
        kind = f"{name}: {kind}"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if self.kinds[kind] > 1:
            return
        print(f"found {kind} (input {at})", flush=True)
        place = self.folder / f"{name}-{seed}-{at}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "reason.txt").write_text(f"{kind}\n{reason}\n", errors="backslashreplace")
        contents = target.make(seed, at)
        for file, data in ({"input.gguf": contents} if isinstance(contents, bytes) else contents).items():
            (place / file).write_bytes(data)


def run(
    name: str,
    target: Target,
    seed: int,
    seconds: float,
    findings: Findings,
    most: int = 1 << 62,
    patience: float = _PATIENCE,
) -> int:
    """Try inputs, and return how many were tried.

    Args:
        name: of the target.
        target: what is tried.
        seed: of the inputs.
        seconds: when to stop.
        findings: are added to.
        most: the largest number of inputs.
        patience: the longest time of one input, in seconds.
    """
    end, at = time.monotonic() + seconds, 0
    while time.monotonic() < end and at < most:
        at = _batch(name, target, seed, (at, min(at + _EACH, most)), end, findings, patience)
    return at


def _batch(
    name: str,
    target: Target,
    seed: int,
    numbers: tuple[int, int],
    end: float,
    findings: Findings,
    patience: float,
) -> int:
    """Run one process, and return the number of the next input."""
    shared, at = mmap.mmap(-1, 8), numbers[0]
    shared[:] = struct.pack("<q", at)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        _child(target, seed, numbers, end, shared, scratch, writing)
    os.close(writing)
    os.set_blocking(reading, False)
    said, seen, since, status = b"", at, time.monotonic(), None
    while status is None:
        time.sleep(0.02)
        said += _read(reading)
        (now,) = struct.unpack("<q", shared[:])
        if now != seen:
            seen, since = now, time.monotonic()
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = code
        elif time.monotonic() - since > patience:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            findings.add(name, target, seed, seen, "no end", f"input {seen} took more than {patience} s")
            status, seen = 0, seen + 1
    said += _read(reading)
    os.close(reading)
    shutil.rmtree(scratch, ignore_errors=True)
    for line in said.decode().splitlines():
        number, kind, reason = json.loads(line)
        findings.add(name, target, seed, number, kind, reason)
    if status:
        what = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        findings.add(name, target, seed, seen, what, "the process ended")
        seen += 1
    return seen


def _read(pipe: int) -> bytes:
    data = b""
    try:
        while part := os.read(pipe, 1 << 16):
            data += part
    except BlockingIOError:
        pass
    return data


def _child(
    target: Target,
    seed: int,
    numbers: tuple[int, int],
    end: float,
    shared: mmap.mmap,
    scratch: Path,
    pipe: int,
) -> None:
    """Try inputs, and end the process. The number of the next one is in `shared`."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)  # what native code prints when it ends the process
    used = _kilobytes("VmSize") << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    attempt(target, seed, numbers[0], scratch)  # what is imported on first use costs once
    for at in range(*numbers):
        shared[:] = struct.pack("<q", at)
        if time.monotonic() > end:
            break
        if (found := attempt(target, seed, at, scratch)) is not None:
            os.write(pipe, json.dumps((at, *found)).encode() + b"\n")
        shared[:] = struct.pack("<q", at + 1)
    os._exit(0)


def attempt(target: Target, seed: int, at: int, scratch: Path) -> tuple[str, str] | None:
    """Try one input; return the kind of the finding and its reason, or None."""
    contents = target.make(seed, at)
    folder = scratch / str(at)
    folder.mkdir(exist_ok=True)
    path = put(contents, folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) >> 20
    _CLEAR.write_text("5")  # the peak of the memory starts anew
    before, start = _kilobytes("VmRSS"), time.process_time()
    try:
        if (wrong := target.attempt(path)) is not None:
            return "an error", wrong
    except BaseException as error:  # panics of Rust, too, and the memory's end
        frames = traceback.extract_tb(error.__traceback__)
        own = next((frame for frame in reversed(frames) if "/torchgguf/" in frame.filename), frames[-1])
        kind = f"{type(error).__name__} in {Path(own.filename).name}:{own.name}"
        return kind, "".join(traceback.format_exception(error))[-4000:]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    spent, grown = time.process_time() - start, (_kilobytes("VmHWM") - before) >> 10
    if spent > SECONDS:
        return "slow", f"{spent:.2f} s of the processor"
    if grown > MEGABYTES + size:
        return "memory", f"{grown} MB beyond a file of {size} MB"
    return None


def _kilobytes(field: str) -> int:
    return int(_STATUS.read_text().split(f"{field}:")[1].split()[0])
