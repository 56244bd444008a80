"""Write lock files from the ranges in pyproject.toml, and compare two of them.

`lock.py newest` prints the newest versions that the ranges allow, of all packages for development.
`lock.py oldest` prints the oldest that the package and its build allow, with the packages of its tests.
`lock.py compare OLD NEW` prints what differs between two lock files.

pip only resolves, and does not install. Its `--constraint` reads these files, so another platform may install
more packages than they list. There are no hashes: those of one torch version differ by build, and pip accepts
hashes either for all packages of a command or for no package.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from requirements import requirements

HEADERS = {
    "newest": "The versions that demo, lint and test install.",
    "oldest": "The oldest versions that the package supports, with what its tests need: `make test-oldest`.",
}
ORIGIN = "Written by `make update`, from the ranges in pyproject.toml, for Python 3.11 on Linux."
# The build of torch decides which of these exist, and requires their exact versions.
PARTS_OF_TORCH = re.compile(r"nvidia-|cuda-|triton$")


def oldest(line: str) -> str:
    """Return the requirement `line` at the first version of its range, or unchanged without one."""
    requirement = Requirement(line)
    beginnings = [each.version for each in requirement.specifier if each.operator == ">="]
    return f"{requirement.name}=={beginnings[0]}" if beginnings else line


def resolve(wanted: list[str]) -> dict[str, str]:
    """Return the versions that pip would install into an empty environment for `wanted`, by name."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    result = subprocess.run(
        [*command, "-qq", "--report", "-", *wanted], stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        sys.exit(result.returncode)  # pip has printed the reason
    packages = [each["metadata"] for each in json.loads(result.stdout)["install"]]
    versions = {canonicalize_name(each["name"]): each["version"].partition("+")[0] for each in packages}
    return {name: versions[name] for name in sorted(versions) if not PARTS_OF_TORCH.match(name)}


def read(path: Path) -> dict[str, str]:
    """Return the versions in the lock file at `path`, by name."""
    lines = path.read_text().splitlines()
    pins = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name: version for name, _, version in pins}


def compare(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """List the packages whose versions differ, each as a line: name, old version, new version."""
    names = sorted(name for name in old | new if old.get(name) != new.get(name))
    rows = [(name, old.get(name, "(absent)"), new.get(name, "(absent)")) for name in names]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [f"{name:{widths[0]}}  {before:>{widths[1]}} -> {after}" for name, before, after in rows]


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("newest").add_argument("--torch", required=True, help="the version of torch")
    commands.add_parser("oldest")
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    options = parser.parse_args()
    if options.command == "compare":
        print("\n".join(compare(read(options.old), read(options.new)) or ["nothing changes"]))
        return
    if options.command == "newest":
        wanted = ["pip", f"torch=={options.torch}", *requirements("test", "dev")]
    else:
        ends = map(oldest, requirements("sentencepiece"))
        wanted = ["pip", "cmake", "ninja", *ends, *requirements("test")]
    pins = [f"{name}=={version}" for name, version in resolve(wanted).items()]
    print(f"# {HEADERS[options.command]}", f"# {ORIGIN}", *pins, sep="\n")


if __name__ == "__main__":
    main()
