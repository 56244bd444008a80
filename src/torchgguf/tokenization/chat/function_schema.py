"""The JSON schema by which a model knows a Python function, from type hints and a docstring."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}
_NAMES: dict[Any, str] = {**_SCALARS, list: "array", tuple: "array", dict: "object"}

_SECTION = re.compile(r"\s*(Args|Returns|Raises):(.*)")
# A type after a parameter's name is ignored: the hint states it.
_PARAMETER = re.compile(r"([ \t]*)(\w+)(?: ?\([^()]*\))?:(.*)")
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


def function_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of a function, as transformers' `get_json_schema` does.

    Types are those of hints, descriptions those of a docstring in Google's style: the text before its
    sections, each parameter's below `Args:`, the result's below `Returns:`. A parameter's may end with the
    values that it accepts, as in `(choices: ["tea", "coffee"])`. `self` and `cls` are omitted, and the result
    if its hint has no schema.

    Raises:
        TypeError: the argument is neither a function nor a method.
        ValueError: a hint, the docstring or a description is missing or not understood.
    """
    if not inspect.isfunction(function) and not inspect.ismethod(function):
        raise TypeError(f"a tool must be a function or its JSON schema, got {function!r}")
    name = function.__name__
    try:
        return {"type": "function", "function": {"name": name, **_description(function)}}
    except ValueError as error:
        raise ValueError(
            f"the function {name} is invalid as a tool: {error}. Correct that, or pass its JSON schema"
        ) from None


def _description(function: Callable[..., Any]) -> dict[str, Any]:
    text, described, of_result = _read_docstring(inspect.getdoc(function) or "")
    try:
        hints = get_type_hints(function)
    except Exception as error:  # a hint may be any expression
        raise ValueError(f"its type hints are invalid: {error}") from None
    properties, required = {}, []
    for position, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if name not in hints:
            if position == 0 and name in ("self", "cls"):
                continue
            raise ValueError(f"its parameter {name!r} has no type hint")
        if name not in described:
            raise ValueError(f"its docstring does not describe the parameter {name!r} below 'Args:'")
        try:
            properties[name] = _schema(hints[name]) | _of_parameter(described[name])
        except ValueError as error:
            raise ValueError(f"of its parameter {name!r}, {error}") from None
        if parameter.default is parameter.empty:
            required.append(name)

    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    schema = {"description": text, "parameters": parameters}
    try:
        result = {"return": _schema(hints["return"])} if "return" in hints else {}
    except ValueError:  # the result has a type without a schema
        return schema
    if result and of_result is not None:
        result["return"]["description"] = of_result
    return schema | result


def _schema(hint: Any) -> dict[str, Any]:
    """Return the JSON schema of a type hint. Raise ValueError if there is none."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return {}
    if kind is Literal:
        return _enumeration(inner)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enumeration([member.value for member in kind])
    if kind in (Union, UnionType):
        return _either(inner)
    if not isinstance(kind, type) or kind not in _NAMES:
        raise ValueError(f"the type {hint!r} has no JSON schema")
    schema: dict[str, Any] = {"type": _NAMES[kind]}
    if not inner:
        return schema
    if kind is list:
        return schema | {"items": _schema(inner[0])}
    if kind is dict:
        return schema | {"additionalProperties": _schema(inner[1])}
    if len(inner) == 1 or ... in inner:
        raise ValueError(f"the type {hint!r} has no JSON schema: a list has one")
    return schema | {"prefixItems": [_schema(part) for part in inner]}


def _enumeration(values: Sequence[Any]) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ValueError(f"the values {list(values)!r} must all be plain strings, numbers, bools or None")
    names = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": names[0] if len(names) == 1 else names, "enum": list(values)}


def _either(hints: Sequence[Any]) -> dict[str, Any]:
    """Return the schema of one of several types: a list of names, unless a type has more than a name."""
    schemas = [_schema(hint) for hint in hints if hint is not NoneType]
    if len(schemas) == 1:
        schema = schemas[0]
    elif all(one.keys() == {"type"} and isinstance(one["type"], str) for one in schemas):
        names = sorted({one["type"] for one in schemas})
        schema = {"type": names[0] if len(names) == 1 else names}
    else:
        schema = {"anyOf": schemas}
    return schema | ({"nullable": True} if NoneType in hints else {})


def _of_parameter(text: str) -> dict[str, Any]:
    """Return the choices at the end of a description, and the text before them."""
    if not (found := _CHOICES.search(text)):
        return {"description": text}
    try:
        choices = json.loads(found[1])
    except ValueError:
        choices = None
    if not isinstance(choices, list):
        raise ValueError(f"the choices {found[1]} are not a JSON list")
    choices = [choice.strip() if isinstance(choice, str) else choice for choice in choices]
    return {"enum": choices, "description": text[: found.start()].strip()}


def _read_docstring(docstring: str) -> tuple[str, dict[str, str], str | None]:
    """Return the text before the sections, the parameters' descriptions, and the result's."""
    if not docstring.strip():
        raise ValueError("it has no docstring")
    section, sections = "", {"": list[str]()}
    for line in docstring.splitlines():
        if header := _SECTION.fullmatch(line):
            section = header[1] + header[2].strip()  # not a section if text follows on the same line
            sections[section] = []
        else:
            sections[section].append(line)
    result = "\n".join(sections["Returns"]).strip() if "Returns" in sections else None
    return "\n".join(sections[""]).strip(), _parameters(sections.get("Args", [])), result


def _parameters(lines: Sequence[str]) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    deeper: tuple[str, ...] = ()
    part: list[str] = []
    for line in lines:
        if (entry := _PARAMETER.fullmatch(line)) and not line.startswith(deeper):
            deeper = (entry[1] + " ", entry[1] + "\t")
            part = parts[entry[2]] = [entry[3]]
        else:
            part.append(line)
    return {name: " ".join(text for line in part if (text := line.strip())) for name, part in parts.items()}
