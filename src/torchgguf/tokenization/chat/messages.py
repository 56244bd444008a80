"""Conversations in the form that chat templates read, and what is found again in the text they write."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from torchgguf.tokenization.errors import ChatTemplateError

Spans = list[tuple[int, int]]

# The names of the assistant's reasoning in messages; templates read the first or the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")

_DEEPEST = 200


def conversations(conversation: Any) -> tuple[list[Sequence[Any]], bool]:
    """Return the conversations, each a list of messages, and whether the argument is a list of them.

    Raises:
        ValueError: a conversation is empty.
    """
    is_batch = not _is_one(conversation) and len(conversation) > 0 and _is_conversation(conversation[0])
    several = [getattr(chat, "messages", chat) for chat in (conversation if is_batch else [conversation])]
    if not all(map(len, several)):
        raise ValueError("the conversation is empty: it needs at least one message")
    return several, is_batch


def _is_one(conversation: Any) -> bool:
    return hasattr(conversation, "messages")


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list | tuple) or _is_one(value)


def prepared(messages: Sequence[Any], change: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """Return messages as templates expect them: plain, without None, with reasoning under each of its names.

    Args:
        messages: the messages.
        change: applied to each message.

    Raises:
        TypeError: a message is neither a dict nor an object that is like one.
    """
    result = []
    for message in messages:
        fields = plain(message)
        if not isinstance(fields, dict):
            raise TypeError(f"a message must be a dict with a role and content, got {message!r}")
        fields = change({key: value for key, value in fields.items() if value is not None})
        for name in _REASONING:
            if name in fields:
                fields = {"thinking": fields[name], **fields, "reasoning_content": fields[name]}
                break
        result.append(fields)
    return result


def plain(value: Any, depth: int = 0) -> Any:
    """Return the value as None, bool, int, float, str, list, tuple or dict; else the name of its type.

    A template reads text, so it gets no object whose methods might do more. Dataclasses and models of
    pydantic become dicts of their fields.

    Args:
        value: the value.
        depth: how many others hold it.

    Raises:
        ChatTemplateError: the value is nested too deep, or holds itself.
    """
    if depth > _DEEPEST:
        raise ChatTemplateError(f"messages are nested over {_DEEPEST} levels deep, or hold themselves")
    deeper = partial(plain, depth=depth + 1)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return deeper(value.item())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)  # ignoring what a subclass overrides
    if isinstance(value, Mapping):
        return {deeper(key): deeper(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(map(deeper, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: deeper(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        return deeper(dump())
    return f"<{type(value).__name__}>"


def continued(messages: list[dict[str, Any]], name: str, tag: str) -> str:
    """Append the tag to a field of the last message, in place; return the field's text.

    Args:
        messages: the messages.
        name: the name of the field.
        tag: the tag.

    Raises:
        ChatTemplateError: the field has no text.
    """
    last = messages[-1]
    content = last.get(name)
    if isinstance(content, str):
        names = _REASONING if name in _REASONING else (name,)
        last.update({field: content + tag for field in names if last.get(field) == content})
        return content
    for part in reversed(content if isinstance(content, list | tuple) else []):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            part["text"] = text + tag
            return text
    raise ChatTemplateError(f"continue_final_message needs a final message with text in {name!r} to continue")


def cut_at(text: str, tag: str, message: str) -> str:
    """Return the text up to the tag, with the message's last space only if the template keeps it.

    The template may rewrite the message, in capitals for instance, and the tag with it. It may also write the
    message several times: the text ends with the last of them.

    Args:
        text: what the template wrote.
        tag: the tag, letters and digits with a space after them.
        message: the text of the message that the tag follows.

    Raises:
        ChatTemplateError: the template omits the end of the message.
    """
    *before, after = re.split(re.escape(tag.strip()), text, flags=re.IGNORECASE)
    if not before:
        raise ChatTemplateError(
            "continue_final_message, but the template omits the final message, or its end"
        )
    result = before[0] + "".join(part.removeprefix(" ") for part in before[1:])
    space = message[len(message.rstrip()) :]
    return result if after.startswith(" ") else result.removesuffix(space)


def unmarked(text: str, mark: str) -> tuple[str, Spans]:
    """Return the text without marks, and the spans of what was between each pair of them."""
    parts = text.split(mark) if mark else [text]
    spans, result = [], ""
    for i, part in enumerate(parts):
        if i % 2:
            spans.append((len(result), len(result) + len(part)))
        result += part
    return result, spans
