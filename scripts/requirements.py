"""Print what the project needs to be built and run, and the extras named as arguments, one a line.

The Makefile installs these before the package itself, so that a change in the C++ code rebuilds the
package alone. torch is left out: it has been installed by then, and must not be chosen anew.
"""

import sys
import tomllib
from pathlib import Path

PYPROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


def main(extras: list[str]) -> None:
    """Print the requirements of the package, of its build and of `extras`."""
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    print("\n".join(requirement for requirement in wanted if not requirement.startswith("torch>")))


if __name__ == "__main__":
    main(sys.argv[1:])
