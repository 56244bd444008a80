"""`ChatTemplates`: conversations to text, and to tokens, by a model's own templates."""

from __future__ import annotations

import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
from torchgguf.tokenization.encoding.batch_encoding import BatchEncoding
from torchgguf.tokenization.encoding.encoder import Encoder
from torchgguf.tokenization.errors import ChatTemplateError

ChatMessage = Mapping[str, Any]
_GENERATION = re.compile(r"{%-?\s*generation\s*-?%}")


class ChatTemplates:
    """A model's chat templates, and the encoder of what they write.

    Attributes:
        encoder: encodes the text of conversations.
        chat_templates: the templates by name; "default" is the main one.
        chat_control_tokens: the tokens besides special ones that only a template may write; None for those
            that stand in the template.
    """

    def __init__(
        self, encoder: Encoder, templates: Mapping[str, str], control_tokens: Sequence[str] | None
    ) -> None:
        self.encoder = encoder
        self.chat_templates = dict(templates)
        self.chat_control_tokens = control_tokens

    @property
    def chat_template(self) -> str | None:
        """The template that is used unless another is named. `chat_templates` holds all by name."""
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
        """Return the source of a template.

        Args:
            chat_template: the name of a template, or a template itself; by default the model's own.
            tools: if there are any, the default is the template "tool_use", where there is one.

        Raises:
            ChatTemplateError: the model has no template.
        """
        if chat_template is not None:
            return self.chat_templates.get(chat_template, chat_template)
        if tools is not None and "tool_use" in self.chat_templates:
            return self.chat_templates["tool_use"]
        if self.chat_template is None:
            named = ", ".join(sorted(self.chat_templates))
            what = f"default chat template, only those named {named}" if named else "chat template"
            raise ChatTemplateError(f"the model has no {what}: pass chat_template=")
        return self.chat_template

    def apply_chat_template(
        self,
        /,
        conversation: Sequence[ChatMessage] | Sequence[Sequence[ChatMessage]],
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
        """Write a conversation, or several, in the format that the model was trained on.

        Args:
            conversation: messages with "role" and "content", or a list of conversations.
            tools: functions with type hints and a docstring, or their JSON schemas.
            documents: dicts with a title and a text.
            chat_template: the name of one of the model's templates, or a template.
            add_generation_prompt: end with the head of the assistant's answer.
            continue_final_message: leave the last message open, for the model to continue; or the name of
                the message's field to leave open, "content" by default.
            tokenize: return an encoding; False returns text.
            sanitize_control_tokens: encode `control_tokens` in messages, tools, documents and variables as
                plain text, so that only the template writes such tokens.
            padding: as in a call of the tokenizer, like the next three.
            truncation: see there.
            max_length: see there.
            return_tensors: see there.
            return_dict: False returns the `input_ids` of the encoding.
            return_assistant_tokens_mask: add `assistant_masks`, 1 for tokens inside `{% generation %}`.
            tokenizer_kwargs: more arguments for a call of the tokenizer.
            kwargs: variables of the template.

        Returns:
            The text, the encoding or the ids; a list or batch of them for several conversations.

        Raises:
            ChatTemplateError: the template fails, or there is none.
            TypeError: a message, document or tool is of a wrong type.
            ValueError: arguments contradict each other, or a conversation is empty.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt and continue_final_message exclude each other")
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise ValueError("return_assistant_tokens_mask=True needs tokenize=True and return_dict=True")
        if sanitize_control_tokens and (not tokenize or return_assistant_tokens_mask or tokenizer_kwargs):
            raise ValueError(
                "sanitize_control_tokens=True needs tokenize=True, and excludes "
                "return_assistant_tokens_mask=True and tokenizer_kwargs"
            )
        if tools is not None:
            tools = [tool if isinstance(tool, Mapping) else function_schema(tool) for tool in tools]
        for document in documents or ():
            if not isinstance(document, Mapping):
                raise TypeError(f"a document must be a dict with a title and text, got {document!r}")

        source = self.get_chat_template(chat_template, tools)
        control = ControlTokens(self.control_tokens(source)) if sanitize_control_tokens else None
        mark = secrets.token_hex(16) if return_assistant_tokens_mask else ""
        if mark and not _GENERATION.search(source):
            warnings.warn("the template has no {% generation %}, so assistant_masks are all 0", stacklevel=3)

        def prepare(value: Any) -> Any:
            return control.mark(plain(value)) if control else plain(value)

        variables = {
            **self.encoder.tokens.special_tokens_map,
            **prepare({**kwargs, "tools": tools, "documents": documents}),
            "add_generation_prompt": add_generation_prompt,
        }
        tag = secrets.token_hex(16) + " "
        texts: list[str] = []
        spans: list[Spans] = []
        several, is_batch = conversations(conversation)
        for messages in several:
            chat = prepared(messages, prepare)
            field = "content" if continue_final_message is True else continue_final_message
            final = continued(chat, field, tag) if field else None
            text, found = unmarked(_render(source, {**variables, "messages": chat}, mark), mark)
            texts.append(text if final is None else cut_at(text, tag, final))
            spans.append(found)
        if not tokenize:
            return texts if is_batch else texts[0]

        encoder = self.encoder
        if control is not None:
            rows = [control.encode(text, self._encode, encoder.encode_plain) for text in texts]
            cut = encoder.truncate(rows, truncation, max_length)
            encoding = encoder.pad({"input_ids": cut}, padding, max_length)
        else:
            encoding = encoder(
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
        """Return the tokens that only the template may write if `sanitize_control_tokens` is set.

        These are the special tokens and, of others that texts are searched for, those in
        `chat_control_tokens`, or by default those that stand in the template. A token that a template joins
        from parts is not found there.

        Args:
            chat_template: the source of the template.
        """
        from torchgguf.tokenization.chat.rendering import literal_text

        chosen, listed = self.chat_control_tokens, literal_text(chat_template)
        tokens = self.encoder.tokens
        return [
            token
            for token, i in tokens.get_added_vocab().items()
            if i in tokens.vocabulary.hidden
            or (token in chosen if chosen is not None else token in listed and not token.isspace())
        ]

    def _encode(self, text: str) -> list[int]:
        return list(self.encoder.encode(text, add_special_tokens=False, split_special_tokens=False))


def _render(source: str, variables: Mapping[str, Any], mark: str) -> str:
    from torchgguf.tokenization.chat.rendering import render  # imports Jinja, which few programs need

    return render(source, variables, mark)


def _inside(encoding: BatchEncoding, row: int, spans: Spans) -> list[int]:
    """Return for each token of a row 1 if its characters are inside one of the spans, else 0."""
    places = (encoding.token_to_chars(row, token) for token in range(len(encoding.tokens(row))))
    return [int(any(a <= place.start < place.end <= b for a, b in spans)) if place else 0 for place in places]
