"""What any file may cost, however it was made: seconds of the processor, and 50 MB beyond the file.

`docs/security.md` promises one second to a process that has imported nothing else than the package. Here the
garbage collector also walks through what all tests have imported.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def megabytes(field: str) -> int:
    """Return a field of the process's memory."""
    return int(STATUS.read_text().split(f"{field}:")[1].split()[0]) >> 10


@contextmanager
def bounded(size: int = 0, seconds: float = 2.0, memory: int = 50) -> Iterator[None]:
    """Check what a block costs.

    Args:
        size: bytes of the file.
        seconds: of processor time.
        memory: MB of resident memory at its peak, beyond the file.
    """
    CLEAR.write_text("5")  # the peak starts anew
    before, start = megabytes("VmRSS"), time.process_time()
    yield
    spent, peak = time.process_time() - start, megabytes("VmHWM") - before
    assert spent < seconds, f"{spent:.2f} s"
    assert peak < memory + (size >> 20), f"{peak} MB for {size} bytes"
