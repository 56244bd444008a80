"""The formats of records: which fields they have, and which texts are learnt from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

CHAT_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class FormatError(ValueError):
    """A record that is not of any format; the message states what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ChatExample:
    """Messages, of which those of the assistant are learnt.

    Attributes:
        messages: each with `role` and `content`, as chat templates read them.
        tools: functions that the assistant may call, or None.
        first: number of the first message that is learnt if it is the assistant's.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Any = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that is learnt, and one before it that is not.

    Attributes:
        prompt: the text before, possibly empty.
        completion: the text that is learnt.
        splits: whether a long text may be learnt in parts.
    """

    prompt: str
    completion: str
    splits: bool = False


Example: TypeAlias = ChatExample | Completion


@dataclass(frozen=True, slots=True)
class Format:
    """A format of records.

    Attributes:
        name: of the format.
        fields: all of which a record must have.
        parse: returns what is learnt: one example, or the preferred one and the rejected one.
        is_preference: whether records are pairs.
    """

    name: str
    fields: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], tuple[Example, ...]]
    is_preference: bool = False


def format_of(fields: Mapping[str, Any]) -> Format:
    """Return the format of a record.

    Raises:
        FormatError: it is of no format.
    """
    for each in FORMATS:
        if all(fields.get(name) is not None for name in each.fields):
            return each
    known = "; ".join(" and ".join(each.fields) for each in FORMATS)
    found = ", ".join(sorted(map(str, fields))) or "none"
    raise FormatError(f"must have the fields of a format ({known}), has {found}; left out")


def _conversation(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    return (_checked(fields["messages"], fields.get("tools")),)


def _other_names(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    """Read messages with `from` and `value`, the names of ShareGPT's files."""
    roles = {"human": "user", "gpt": "assistant", "observation": "tool"}
    messages = [
        {"role": roles.get(each["from"], each["from"]), "content": each["value"]}
        if isinstance(each, Mapping) and {"from", "value"} <= each.keys()
        else each
        for each in _list(fields["conversations"], "conversations")
    ]
    return (_checked(messages, fields.get("tools")),)


def _instruction(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    """Read an instruction with its answer, the fields of Alpaca's files, as a conversation."""
    parts = [_text(fields["instruction"], "instruction"), _text(fields.get("input") or "", "input")]
    question = "\n\n".join(filter(None, parts))
    answer = _text(fields["output"], "output")
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return (_checked(messages, None),)


def _completion(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    return (_continuation(fields["prompt"], fields["completion"], "completion", fields.get("tools")),)


def _preference(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    prompt, tools = fields.get("prompt"), fields.get("tools")
    if prompt is None:
        return tuple(_continuation(*pair, tools) for pair in _without_prompt(fields))
    return tuple(_continuation(prompt, fields[name], name, tools) for name in ("chosen", "rejected"))


def _without_prompt(fields: Mapping[str, Any]) -> list[tuple[Any, Any, str]]:
    """Split what two answers share at their beginning from them: the prompt."""
    chosen, rejected = fields["chosen"], fields["rejected"]
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        raise FormatError("must have a prompt, as chosen and rejected are not lists of messages; left out")
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return [(chosen[:same], chosen[same:], "chosen"), (rejected[:same], rejected[same:], "rejected")]


def _plain(fields: Mapping[str, Any]) -> tuple[Example, ...]:
    return (Completion("", _filled(fields["text"], "text"), splits=True),)


def _continuation(prompt: Any, answer: Any, name: str, tools: Any) -> Example:
    """Return an answer to a prompt; both are texts, or both messages."""
    if isinstance(prompt, list) or isinstance(answer, list):
        if isinstance(answer, str):
            answer = [{"role": "assistant", "content": answer}]
        before = _list(prompt, "prompt")
        return _checked([*before, *_list(answer, name)], tools, len(before))
    return Completion(_text(prompt, "prompt"), _filled(answer, name))


def _checked(messages: Any, tools: Any, first: int = 0) -> ChatExample:
    for number, message in enumerate(_list(messages, "messages"), 1):
        if not isinstance(message, Mapping) or "role" not in message:
            raise FormatError(f"message {number} must have role and content; left out")
        if message["role"] not in CHAT_ROLES:
            raise FormatError(
                f"has the role {message['role']!r}, must be of {', '.join(CHAT_ROLES)}; left out"
            )
        content = message.get("content")
        if not isinstance(content, str | list | None):
            raise FormatError(f"message {number} has {type(content).__name__} as content; left out")
        answers = message["role"] == "assistant" and number > first
        if answers and not (content or message.get("tool_calls")):
            raise FormatError("has an empty answer; left out")
    if not any(message["role"] == "assistant" for message in messages[first:]):
        raise FormatError("has no answer: no message of the assistant; left out")
    return ChatExample(messages, tools or None, first)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple) or not value:
        raise FormatError(f"{name} must be a list of messages, and not empty; left out")
    return list(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{name} must be a text, not {type(value).__name__}; left out")
    return value


def _filled(value: Any, name: str) -> str:
    if not _text(value, name).strip():
        raise FormatError(f"{name} is empty; left out")
    return str(value)


# The first whose fields a record has.
FORMATS = (
    Format("chat", ("messages",), _conversation),
    Format("chat (ShareGPT)", ("conversations",), _other_names),
    Format("preference", ("chosen", "rejected"), _preference, is_preference=True),
    Format("prompt and completion", ("prompt", "completion"), _completion),
    Format("instruction", ("instruction", "output"), _instruction),
    Format("text", ("text",), _plain),
)
