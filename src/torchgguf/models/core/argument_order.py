"""The order in which `forward` accepts arguments by position, which some architectures have of their own."""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import Any


def in_order(forward: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Wrap a method, so that its first arguments by position are those of these names, in their order.

    Args:
        forward: called with all arguments by name; its other parameters are accepted by name only.
        names: of parameters, or of what it accepts as `**` arguments.

    Returns:
        The method, with a signature that shows the order.
    """
    declared = signature(forward)
    by_name = dict(declared.parameters)
    this = by_name.pop(next(iter(by_name)))
    missing = Parameter("missing", Parameter.KEYWORD_ONLY, default=None)
    first = [
        by_name.pop(name, missing).replace(name=name, kind=Parameter.POSITIONAL_OR_KEYWORD) for name in names
    ]
    rest = [
        each if each.kind is Parameter.VAR_KEYWORD else each.replace(kind=Parameter.KEYWORD_ONLY)
        for each in by_name.values()
    ]

    @wraps(forward)
    def ordered(self: Any, *args: Any, **values: Any) -> Any:
        if len(args) > len(names):
            raise TypeError(f"forward() accepts {len(names)} arguments by position, but got {len(args)}")
        for name, value in zip(names, args, strict=False):
            if name in values:
                raise TypeError(f"forward() got multiple values for argument {name!r}")
            values[name] = value
        return forward(self, **values)

    ordered.__signature__ = declared.replace(parameters=[this, *first, *rest])  # type: ignore[attr-defined]
    return ordered
