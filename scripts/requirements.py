"""Print the requirements to build and run the project, and of the extras named as arguments, one a line.

The Makefile installs these before the package itself, so that a change in the C++ code rebuilds the
package alone. torch is not printed: it is installed first and alone, so that no package chooses its build.
"""

import sys
import tomllib
from pathlib import Path

PYPROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())


def requirements(*extras: str) -> list[str]:
    """List the requirements of the package, of its build, and of `extras`, torch among them."""
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    return wanted


if __name__ == "__main__":
    lines = requirements(*sys.argv[1:])
    print("\n".join(line for line in lines if not line.startswith("torch>")))
