"""Try changed files for some time, each in a process with limits, and keep what goes wrong.

Where atheris is installed, libFuzzer has a part of the time for each target that loads a single file. An
input is a function of its target, of the seed and of its number: a crash loses nothing. What is found lies
in `fuzz/found`, the file and a text with the reason, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from fuzz.running import Findings, run
from fuzz.targets import TARGETS


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"by default all: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all targets together (default: 600)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="by default the time")
    parser.add_argument(
        "--found", type=Path, default=Path(__file__).parent / "found", help="where to keep inputs"
    )
    options = parser.parse_args()
    if unknown := {*options.targets} - TARGETS.keys():
        parser.error(f"there is no target {unknown.pop()!r}; these are: {', '.join(TARGETS)}")
    names = options.targets or [*TARGETS]
    guided = [name for name in names if TARGETS[name].seeds.endswith(".gguf")] if find_spec("atheris") else []
    each, failed = options.seconds / len([*names, *guided]), False
    findings = Findings(options.found)
    for name in names:
        tried = run(name, TARGETS[name], options.seed, each, findings)
        print(f"{name}: {tried} inputs of seed {options.seed}, {findings.count(name)} findings", flush=True)
    for name in guided:
        options.found.mkdir(parents=True, exist_ok=True)
        limits = [
            "-verbosity=0",
            f"-max_total_time={max(1, int(each))}",
            f"-artifact_prefix={options.found}/{name}-",
        ]
        command = [sys.executable, "-m", "fuzz.coverage", name, *limits, f"-seed={options.seed}"]
        print(f"{name}, guided by coverage:", flush=True)
        failed |= subprocess.run(command, check=False).returncode != 0
    if options.found.is_dir() and not any(options.found.iterdir()):
        options.found.rmdir()
    return 1 if findings.kinds or failed else 0


if __name__ == "__main__":
    sys.exit(main())
