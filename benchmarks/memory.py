"""Memory of this process."""

from pathlib import Path


def peak_memory() -> float:
    """Return the peak resident memory of this process, mapped files included, in GB."""
    # Not maxrss of getrusage: it survives exec, and would report the parent's.
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
    return int(kilobytes) * 1024 / 1e9
