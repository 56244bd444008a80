"""Options of transformers that torchgguf does not have, and accepts where they ask for nothing.

A table has one row for each such option: the values that ask for nothing but what is done anyway. Code
written for transformers then runs unchanged, and an option that asks for more is an error that names it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping
from typing import Any

# option: the values that ask for nothing
NeutralOptions = Mapping[str, tuple[Any, ...]]

# Values that change nothing here, but that a warning explains.
_EXPLAINED: Mapping[str, tuple[bool, str]] = {
    "trust_remote_code": (True, "no code of a repository is ever run"),
}


def split_options(
    options: Mapping[str, Any], neutral: NeutralOptions, *known: Collection[str]
) -> tuple[dict[str, Any], ...]:
    """Sort the options of a call, and drop those that ask for nothing.

    Args:
        options: the options by name.
        neutral: the options that torchgguf does not have.
        known: groups of the names of those that it has. A name belongs to its first group.

    Returns:
        The options of each group, and one dict more of those that belong to none.

    Raises:
        ValueError: a neutral option asks for something.
    """
    groups: tuple[dict[str, Any], ...] = tuple({} for _ in range(len(known) + 1))
    for name, value in options.items():
        if name not in neutral:
            place = next((i for i, names in enumerate(known) if name in names), len(known))
            groups[place][name] = value
        elif value not in neutral[name]:
            raise ValueError(f"{name}={value!r} is not supported")
        elif name in _EXPLAINED and value is _EXPLAINED[name][0]:
            warn_user(f"{name}={value}: {_EXPLAINED[name][1]}")
    return groups


def warn_user(message: str) -> None:
    """Warn, at the line that called the package; so Python shows the warning once for each such line."""
    package, level = __name__.partition(".")[0], 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def rename_option(options: dict[str, Any], deprecated: str, name: str) -> None:
    """Rename a deprecated option, in place. The current name takes precedence unless its value is None.

    Args:
        options: the options by name.
        deprecated: the deprecated name.
        name: the current name.
    """
    value = options.pop(deprecated, None)
    if options.get(name) is None and value is not None:
        options[name] = value
