"""Functions as tools: their schemas are those of transformers."""

import functools
import json
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Dict, List, Literal, Optional, Tuple, Union  # noqa: UP035

import pytest
from transformers.utils import get_json_schema

from tests.tokenization.conversations import TOOL, USER
from torchgguf.tokenization import Tokenizer
from torchgguf.tokenization.chat.function_schema import function_schema


class Scale(Enum):
    CELSIUS = "C"
    KELVIN = "K"


class Mixed(Enum):
    ONE = 1
    NONE = None


class Station:
    def read(self, sensor: str, times: int = 1) -> float:
        """Read a sensor.

        Args:
            sensor: its name
            times: how often
        """

    @classmethod
    def count(cls, country: str) -> int:
        """Count the stations.

        Args:
            country: where
        """

    @staticmethod
    def nearest(place: str) -> str:
        """The nearest station.

        Args:
            place: to where
        """


def nothing() -> None:
    """Do nothing."""


def scalars(text: str, number: int, part: float, flag: bool, gone: None, whatever: Any):
    """Every scalar.

    Args:
        text: a text
        number: a number
        part: a part
        flag: a flag
        gone: None
        whatever: something
    """


def containers(a: list, b: list[int], c: dict, d: dict[str, float], e: tuple, f: tuple[int, str]):
    """Every container.

    Args:
        a: a list
        b: of numbers
        c: a dict
        d: of numbers
        e: a tuple
        f: of two
    """


def old_names(a: List[int], b: Dict[str, List[str]], c: Tuple[int, float], d: List, e: Dict):  # noqa: UP006
    """As typing has called them.

    Args:
        a: a
        b: b
        c: c
        d: d
        e: e
    """


def nested(a: list[dict[str, list[tuple[int, str]]]], b: dict[str, Any] = {}):  # noqa: B006
    """Deep inside.

    Args:
        a: deep
        b: flat
    """


def unions(
    a: Optional[int],  # noqa: UP045
    b: Union[int, str],  # noqa: UP007
    c: int | None = None,
    d: str | int | float = 1,
    e: list[int] | str | None = None,
    f: list | tuple = (),
    g: Literal["x", "y"] | int = 1,
    h: int | Any = 1,
):
    """One of several.

    Args:
        a: maybe
        b: this or that
        c: maybe
        d: one of three
        e: a list perhaps
        f: the same twice
        g: some values
        h: anything
    """


def values(a: Literal["x", "y"], b: Literal[1, "z", None, True], c: Scale, d: Mixed, e: Optional[Scale]):  # noqa: UP045
    """Only these.

    Args:
        a: two
        b: of all types
        c: a scale
        d: or nothing
        e: maybe
    """


def choices(a: str, b: int = 3, c: str = "") -> Literal["yes", "no"]:
    """Drink something.

    Args:
        a: The beverage (choices: ["tea", " coffee "])
        b: Cups (Choices: [1, 2, 3])
        c: (choices: ["in the (middle)"]) is none at all

    Returns:
        Whether it was good
    """


def long_winded(first: str, second: int, third: float = 0.5) -> dict[str, Any]:
    """
    What it does, in a line
    and another: with a colon.

    A second paragraph,
        indented.

    Args:
        first: A description
            that goes on: here

            and, after a gap, here.
        second:
            Only below
        third: last one.

    Returns:
        A dict with
            x: something
        and more.

    Raises:
        ValueError: never
    """


def raises_alone(a: int):
    """Try it.

    Args:
        a: a number

    Raises:
        ValueError: often
    """


def tabs(a: int, b: int): ...


tabs.__doc__ = "Try tabs.\n\nArgs:\n\ta: one\n\t\tgoes on: there\n\tb: two\n"


def further_sections(a: int) -> "int":
    """With examples.

    Args:
        a: a number

    Example:
        further_sections(3)

    Returns:
        the number
    """


def odd_result(a: int) -> Callable[[], int]:
    """Return what has no schema.

    Args:
        a: a number

    Returns:
        a function
    """


def unicode(größe: Annotated[float, "in metres"]):
    """Miß die Größe „genau“.

    Args:
        größe: in Metern — 🦙
    """


def one_line(a: int) -> str:
    """Do it. Returns: nothing much

    Args:
        a: a number
    Returns: on the same line
    """


@functools.wraps(raises_alone)
def wrapped(*args, **kwargs):
    return raises_alone(*args, **kwargs)


FUNCTIONS: list[Callable[..., Any]] = [
    *(nothing, scalars, containers, old_names, nested, unions, values, choices, long_winded, raises_alone),
    *(tabs, further_sections, odd_result, unicode, wrapped),
    *(Station().read, Station.read, Station.count, Station.nearest),
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_schemas_of_transformers(function: Callable[..., Any]) -> None:
    # as templates write them, so that the order counts too
    assert json.dumps(function_schema(function)) == json.dumps(get_json_schema(function))


def test_types_beside_names() -> None:
    def typed(a: int, b: str = "") -> None:
        """Try it.

        Args:
            a (int): a number
            b (`str`, *optional*): a text
                (at most) this: long
        """

    described = function_schema(typed)["function"]["parameters"]["properties"]
    assert {name: entry["description"] for name, entry in described.items()} == {
        "a": "a number",
        "b": "a text (at most) this: long",
    }


def undocumented(a: int) -> int: ...


def unhinted(a: int, b) -> int:
    """Try it.

    Args:
        a: a number
        b: another
    """


def undescribed(a: int, b: int) -> int:  # noqa: D417
    """Try it.

    Args:
        a: a number
    """


def of_a_class(a: Station) -> int:
    """Try it.

    Args:
        a: a station
    """


def of_a_missing_class(a: "Missing") -> int:  # noqa: F821
    """Try it.

    Args:
        a: a station
    """


def of_some_length(a: tuple[int, ...]) -> int:
    """Try it.

    Args:
        a: some numbers
    """


def no_list(a: str) -> int:
    """Try it.

    Args:
        a: a word (choices: tea, coffee)
    """


def odd_values(a: Literal[b"x"]) -> int:
    """Try it.

    Args:
        a: a word
    """


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (undocumented, "it has no docstring"),
        (unhinted, "its parameter 'b' has no type hint"),
        (undescribed, "its docstring does not describe the parameter 'b' below 'Args:'"),
        (of_a_class, "of its parameter 'a', the type <class .*Station'> has no JSON schema"),
        (of_a_missing_class, "its type hints are invalid: name 'Missing' is not defined"),
        (
            of_some_length,
            r"of its parameter 'a', the type tuple\[int, \.\.\.\] has no JSON schema: a list has one",
        ),
        (no_list, "of its parameter 'a', the choices tea, coffee are not a JSON list"),
        (
            odd_values,
            r"of its parameter 'a', the values \[b'x'\] must all be plain strings, numbers, bools or None",
        ),
    ],
)
def test_functions_that_are_no_tools(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(Exception):  # noqa: B017  (of several kinds)
        get_json_schema(function)
    with pytest.raises(ValueError, match=f"the function {function.__name__} is invalid as a tool: {reason}"):
        function_schema(function)


@pytest.mark.parametrize("tool", [print, Station, functools.partial(nothing), "nothing", 3])
def test_what_is_no_function(tool: Any) -> None:
    with pytest.raises(TypeError, match="a tool must be a function or its JSON schema, got "):
        function_schema(tool)


@pytest.mark.slow
def test_tools_of_both_kinds(qwen2: Tokenizer, transformers_qwen2: Any) -> None:
    options: dict[str, Any] = {"tools": [choices, TOOL, Station().read], "tokenize": False}
    expected = transformers_qwen2.apply_chat_template([USER], **options)
    assert qwen2.apply_chat_template([USER], **options) == expected
