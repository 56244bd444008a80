"""Conversations to text by a model's own template."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from jinja2 import Template

from torchgguf.tokenization.budget import limited
from torchgguf.tokenization.encoder import TextEncoder
from torchgguf.tokenization.encoding import BatchEncoding
from torchgguf.tokenization.errors import ChatTemplateError, TokenizerError
from torchgguf.tokenization.function_schema import function_schema
from torchgguf.tokenization.sandbox import ChatEnvironment

KEY = "tokenizer.chat_template"
NAMES_KEY = "tokenizer.chat_templates"
Message = Mapping[str, Any]
Spans = list[tuple[int, int]]

_ENVIRONMENT = ChatEnvironment()


@functools.lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def render(source: str, variables: Mapping[str, Any], mark: str = "") -> str:
    """Render a template in the sandbox. ChatTemplateError whatever is wrong with it."""
    try:
        with limited(mark):
            return _compiled(source).render(variables)
    except Exception as error:  # a stranger's program: it may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ChatTemplateError(f"the chat template failed: {reason}") from error


def plain(value: Any) -> Any:
    """The value as None, bool, int, float, str, list and dict; anything else is named by its type.

    A template reads text. It gets no object whose methods might do more than that.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return getattr(kind, f"__{kind.__name__}__")(value)  # past what a subclass makes of itself
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"


def continued(messages: list[dict[str, Any]], tag: str) -> str:
    """Mark the end of the last message's text with the tag; returns that text."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, str):
        messages[-1]["content"] = content + tag
        return content
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            part["text"] = text + tag
            return text
    raise ChatTemplateError("continue_final_message=True needs a final message with text to continue")


def cut_at(text: str, tag: str, message: str) -> str:
    """The text up to the tag, with the space before it only if the template leaves it there."""
    place = text.rfind(tag.strip())
    if place < 0 or message.strip() not in text:
        raise ChatTemplateError("continue_final_message=True, but the template leaves the final message out")
    before = text[:place]
    return before if text.startswith(tag, place) else before.rstrip()


def unmarked(text: str, mark: str) -> tuple[str, Spans]:
    """The text without marks, and (from, to) of what was between each pair of them."""
    parts = text.split(mark) if mark else [text]
    spans, result = [], ""
    for i, part in enumerate(parts):
        if i % 2:
            spans.append((len(result), len(result) + len(part)))
        result += part
    return result, spans


def read_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates in a GGUF file's metadata, by name. TokenizerError if one is no text."""
    templates = {}
    for key, source in metadata.items():
        if key == KEY or key.startswith(KEY + "."):
            if not isinstance(source, str):
                raise TokenizerError(f"{key} must be a string, not {type(source).__name__}")
            templates[key[len(KEY) + 1 :] or "default"] = source
    return templates


def templates_metadata(templates: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of chat templates; llama.cpp's converter writes other characters in names as "_"."""
    named = [_key_part(name) for name in templates if name != "default"]
    stated: dict[str, Any] = {_key(name): source for name, source in templates.items()}
    return {**stated, NAMES_KEY: named} if named else stated


class ChatTokenizer(TextEncoder):
    """Encodes conversations. `chat_templates`: the model's templates by their names."""

    chat_templates: dict[str, str]
    _template_keys: list[str]  # of those that it came with

    def _template_settings(self) -> dict[str, Any]:
        """What the metadata says of the templates: None for what it does not, or no longer."""
        return dict.fromkeys([*self._template_keys, NAMES_KEY]) | templates_metadata(self.chat_templates)

    @property
    def chat_template(self) -> str | None:
        """The template that is used unless another is named. `chat_templates` holds all, by name."""
        return self.chat_templates.get("default")

    @chat_template.setter
    def chat_template(self, source: str | None) -> None:
        if source is None:
            self.chat_templates.pop("default", None)
        else:
            self.chat_templates["default"] = source

    def get_chat_template(self, chat_template: str | None = None, tools: Any = None) -> str:
        """The source of a template: of that name, or the argument itself, or else the model's own.

        With tools that is the one named "tool_use", if there is one. ChatTemplateError if there is none.
        """
        if chat_template is not None:
            return self.chat_templates.get(chat_template, chat_template)
        if tools is not None and "tool_use" in self.chat_templates:
            return self.chat_templates["tool_use"]
        if self.chat_template is None:
            named = (
                f" but those named {', '.join(sorted(self.chat_templates))}" if self.chat_templates else ""
            )
            raise ChatTemplateError(f"the model has no chat template{named}: pass chat_template=")
        return self.chat_template

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write a conversation, or several, as the model was taught to read it.

        `conversation`: messages with "role" and "content". `tools`: functions with type hints and a
        docstring, or their JSON schemas. `chat_template`: the name of one of the model's templates, or a
        template. `add_generation_prompt`: end with the head of the assistant's answer.
        `continue_final_message`: leave the last message open, for the model to go on with. `tokenize=False`
        returns text; else an encoding, or with `return_dict=False` its `input_ids`.
        `return_assistant_tokens_mask` adds `assistant_masks`, 1 for tokens inside of `{% generation %}`.
        Other arguments are the template's variables. ChatTemplateError if it fails.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt and continue_final_message exclude each other")
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        if not conversation:
            raise ValueError("the conversation is empty: it needs a message at least")
        if tools is not None:
            tools = [tool if isinstance(tool, Mapping) else function_schema(tool) for tool in tools]

        source = self.get_chat_template(chat_template, tools)
        variables = plain(
            {
                **self.special_tokens_map,
                **kwargs,
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
            }
        )
        mark = secrets.token_hex(16) if return_assistant_tokens_mask else ""
        tag = secrets.token_hex(16) + " "
        is_batch = not isinstance(conversation[0], Mapping)
        texts: list[str] = []
        spans: list[Spans] = []
        for messages in cast("Sequence[Sequence[Message]]", conversation if is_batch else [conversation]):
            chat = [_without_gaps(message) for message in messages]
            final = continued(chat, tag) if continue_final_message else None
            text, found = unmarked(render(source, {**variables, "messages": chat}, mark), mark)
            texts.append(text if final is None else cut_at(text, tag, final))
            spans.append(found)
        if not tokenize:
            return texts if is_batch else texts[0]

        encoding = self(
            texts,
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            **(tokenizer_kwargs or {}),
        )
        if return_assistant_tokens_mask:
            encoding["assistant_masks"] = [_inside(encoding, i, row) for i, row in enumerate(spans)]
        if is_batch or return_tensors is not None:
            encoding.convert_to_tensors(return_tensors)
        else:
            encoding = encoding.only_row()
        return encoding if return_dict else encoding["input_ids"]


def _key(name: str) -> str:
    return KEY if name == "default" else f"{KEY}.{_key_part(name)}"


def _key_part(name: str) -> str:
    return re.sub("[^A-Za-z0-9]", "_", name)


def _without_gaps(message: Message) -> dict[str, Any]:
    """The message without its None values, and with its reasoning under each name that templates look for."""
    plain_message: dict[str, Any] = plain({key: value for key, value in message.items() if value is not None})
    for name in ("reasoning_content", "thinking", "reasoning"):
        if name in plain_message:
            reasoning = plain_message[name]
            return {"thinking": reasoning, **plain_message, "reasoning_content": reasoning}
    return plain_message


def _inside(encoding: BatchEncoding, row: int, spans: Spans) -> list[int]:
    """For each token of a row 1 if its characters are in one of the spans."""
    places = (encoding.token_to_chars(row, token) for token in range(len(encoding.tokens(row))))
    return [int(any(a <= place.start < place.end <= b for a, b in spans)) if place else 0 for place in places]
