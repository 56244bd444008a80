"""Conversations to text by a model's own template."""

from __future__ import annotations

import functools
import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Template, nodes

from torchgguf.tokenization.chat.budget import limited
from torchgguf.tokenization.chat.control_tokens import ControlTokens
from torchgguf.tokenization.chat.function_schema import function_schema
from torchgguf.tokenization.chat.messages import (
    Spans,
    continued,
    conversations,
    cut_at,
    plain,
    prepared,
    unmarked,
)
from torchgguf.tokenization.chat.sandbox import ChatEnvironment
from torchgguf.tokenization.encoding.batch_encoding import BatchEncoding
from torchgguf.tokenization.encoding.encoder import TextEncoder
from torchgguf.tokenization.errors import ChatTemplateError, TokenizerError

KEY = "tokenizer.chat_template"
NAMES_KEY = "tokenizer.chat_templates"
Message = Mapping[str, Any]
_LONGEST_REASON = 1000  # characters of what a template says for itself
_GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")

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
        reason = " ".join(str(error)[:_LONGEST_REASON].split()) or type(error).__name__
        raise ChatTemplateError(f"the chat template failed: {reason}") from error


@functools.lru_cache(maxsize=8)
def _literal_text(source: str) -> str:
    """What a template writes of its own accord, in pieces between zeros."""
    with limited():
        tree = _ENVIRONMENT.parse(source)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    constants = [node.value for node in tree.find_all(nodes.Const)]
    return "\0".join([*texts, *(value for value in constants if isinstance(value, str))])


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
    """Encodes conversations.

    `chat_templates`: the model's templates by their names. `chat_control_tokens`: the tokens beside special
    ones that only a template may write, None if they are those that it has.
    """

    chat_templates: dict[str, str]
    chat_control_tokens: Sequence[str] | None
    _template_keys: list[str]  # of those that it came with

    def _template_settings(self) -> dict[str, Any]:
        """What the metadata says of the templates: None for what it does not, or no longer."""
        return dict.fromkeys([*self._template_keys, NAMES_KEY]) | templates_metadata(self.chat_templates)

    @property
    def chat_template(self) -> str | None:
        """The template that is used unless another is named. `chat_templates` holds all, by name."""
        return self.chat_templates.get("default")

    @chat_template.setter
    def chat_template(self, source: str | Mapping[str, str] | None) -> None:
        if isinstance(source, Mapping):
            self.chat_templates = dict(source)
        elif source is None:
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
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        sanitize_control_tokens: bool = False,
        padding: bool | str = False,
        truncation: bool | str = False,
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
        `continue_final_message`: leave the last message open, for the model to go on with; or the name of the
        message's field that is left open, "content" if it is not said. `tokenize=False` returns text; else an
        encoding, or with `return_dict=False` its `input_ids`. `sanitize_control_tokens`: what messages,
        tools, documents and variables have of `control_tokens` is encoded as the text that it is, so that
        only the template writes such tokens. `return_assistant_tokens_mask` adds `assistant_masks`, 1 for
        tokens inside of `{% generation %}`. Other arguments are the template's variables. ChatTemplateError
        if it fails.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt and continue_final_message exclude each other")
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        if sanitize_control_tokens and (not tokenize or return_assistant_tokens_mask or tokenizer_kwargs):
            raise ValueError(
                "sanitize_control_tokens=True needs tokenize=True, and goes neither with "
                "return_assistant_tokens_mask=True nor with tokenizer_kwargs"
            )
        if tools is not None:
            tools = [tool if isinstance(tool, Mapping) else function_schema(tool) for tool in tools]
        for document in documents or ():
            if not isinstance(document, Mapping):
                raise TypeError(f"a document is a dict with a title and text, not {document!r}")

        source = self.get_chat_template(chat_template, tools)
        control = ControlTokens(self.control_tokens(source)) if sanitize_control_tokens else None
        mark = secrets.token_hex(16) if return_assistant_tokens_mask else ""
        if mark and not _GENERATION.search(source):
            warnings.warn("the template has no {% generation %}, so assistant_masks are all 0", stacklevel=2)

        def given(value: Any) -> Any:
            return control.mark(plain(value)) if control else plain(value)

        variables = {
            **self.special_tokens_map,
            **given({**kwargs, "tools": tools, "documents": documents}),
            "add_generation_prompt": add_generation_prompt,
        }
        tag = secrets.token_hex(16) + " "
        texts: list[str] = []
        spans: list[Spans] = []
        several, is_batch = conversations(conversation)
        for messages in several:
            chat = prepared(messages, given)
            field = "content" if continue_final_message is True else continue_final_message
            final = continued(chat, field, tag) if field else None
            text, found = unmarked(render(source, {**variables, "messages": chat}, mark), mark)
            texts.append(text if final is None else cut_at(text, tag, final))
            spans.append(found)
        if not tokenize:
            return texts if is_batch else texts[0]

        if control is not None:
            rows = [control.encode(text, self._encode_in_chat, self._encode_as_text) for text in texts]
            encoding = self.pad({"input_ids": self._cut(rows, truncation, max_length)}, padding, max_length)
        else:
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

    def control_tokens(self, chat_template: str) -> list[str]:
        """The tokens that only a template may write, where it is asked to be the only one.

        These are the special ones and, of others that texts are searched for, those in `chat_control_tokens`
        or else those that stand in the template. What it puts together of parts is not found there.
        """
        chosen, listed = self.chat_control_tokens, _literal_text(chat_template)
        return [
            token
            for token, i in self.get_added_vocab().items()
            if i in self.vocabulary.hidden
            or (token in chosen if chosen is not None else token in listed and not token.isspace())
        ]

    def _encode_in_chat(self, text: str) -> list[int]:
        return list(self.encode(text, add_special_tokens=False, split_special_tokens=False))


def _key(name: str) -> str:
    return KEY if name == "default" else f"{KEY}.{_key_part(name)}"


def _key_part(name: str) -> str:
    return re.sub("[^A-Za-z0-9]", "_", name)


def _inside(encoding: BatchEncoding, row: int, spans: Spans) -> list[int]:
    """For each token of a row 1 if its characters are in one of the spans."""
    places = (encoding.token_to_chars(row, token) for token in range(len(encoding.tokens(row))))
    return [int(any(a <= place.start < place.end <= b for a, b in spans)) if place else 0 for place in places]
