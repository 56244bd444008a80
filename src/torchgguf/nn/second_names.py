"""Second names of arguments and outputs: transformers before 5.24 calls the cache `past_key_values`.

The package itself uses first names only. What a user calls or reads accepts both, without a warning: outputs
by `ModelOutput`, the `forward` of models by `PreTrainedModel`, `generate` and its like by their preparation.
"""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

SECOND_NAMES = {"past_key_values": "cache"}


def first_name(name: str) -> str:
    """Return the name under which a value is kept: `cache` for `past_key_values`, others unchanged."""
    return SECOND_NAMES.get(name, name)


def accept_second_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, so that it accepts its named arguments under their second names too.

    Args:
        function: what to call; its signature stays visible.

    Returns:
        The wrapped function. It raises a `TypeError` that shows both names, if a call uses both.
    """
    declared = signature(function).parameters
    # A function of a user may declare the second name itself.
    names = [(second, first) for second, first in SECOND_NAMES.items() if second not in declared]

    @wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        for second, first in names:
            if second in values:
                if first in values:
                    raise TypeError(f"{first} and {second} are two names of one argument: use {first} only")
                values[first] = values.pop(second)
        return function(*args, **values)

    return call
