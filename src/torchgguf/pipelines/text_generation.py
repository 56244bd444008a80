"""Text generation: texts continued, conversations answered."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from torchgguf.generation import EosTokenCriteria, GenerationConfig, StopStringCriteria
from torchgguf.generation.configuration import FIELDS
from torchgguf.generation.resolution import settings_of
from torchgguf.generation.stopping import Criterion
from torchgguf.pipelines.base import Pipeline

# Defaults if neither the call nor the generation_config of the model sets them, as in transformers.
_DEFAULTS = {"do_sample": True, "temperature": 0.7}
_DEFAULT_NEW_TOKENS = 256
_RETURNS = "only one of return_full_text, return_text and return_tensors is allowed"


class TextGenerationPipeline(Pipeline):
    """Return a list of `{"generated_text": ...}` for each text, one for each requested sequence.

    For a conversation, a list of `{"role": ..., "content": ...}`, `generated_text` is the conversation with
    the answer. If the last message is from the assistant, that message is continued.

    Options: `return_full_text=False` omits the prompt; `return_tensors=True` returns
    `"generated_token_ids"` instead; `prefix` is put before every text and does not count in length limits;
    `stop_sequence`, one text or several, ends a continuation; `handle_long_generation="hole"` cuts off the
    beginning of a prompt that is too long. `continue_final_message`, `tools` and `documents` go to the chat
    template; `add_special_tokens`, `truncation` and `tokenizer_encode_kwargs` to the tokenizer;
    `skip_special_tokens` and `clean_up_tokenization_spaces` to the decoder. All other options go to
    `generate`.
    """

    task = "text-generation"

    def is_single(self, inputs: Any) -> bool:
        """Return whether this is one text or conversation, not several."""
        return isinstance(inputs, str) or _is_chat(inputs)

    def merged(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Merge options; a generation_config in the call replaces all of its fields in the pipeline."""
        own = self.options
        if options.get("generation_config") is not None:
            own = {name: value for name, value in own.items() if name not in FIELDS}
        return {**own, **options}

    def answer(
        self,
        inputs: list[Any],
        *,
        return_full_text: bool | None = None,
        return_text: bool | None = None,
        return_tensors: bool | None = None,
        prefix: str = "",
        stop_sequence: str | list[str] | None = None,
        handle_long_generation: str | None = None,
        continue_final_message: bool | None = None,
        tools: list[Any] | None = None,
        documents: list[Any] | None = None,
        add_special_tokens: bool | None = None,
        truncation: bool | str | None = None,
        tokenizer_encode_kwargs: dict[str, Any] | None = None,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_options: Any,
    ) -> list[Any]:
        """Continue each input."""
        if sum(option is not None for option in (return_full_text, return_text, return_tensors)) > 1:
            raise ValueError(_RETURNS)
        if generate_options.get("return_dict_in_generate"):
            raise ValueError("return_dict_in_generate is unsupported in a pipeline: use model.generate")
        if stop_sequence is not None:
            generate_options |= {"stop_strings": stop_sequence}
        if prefix:
            generate_options |= self._lengths_with(prefix, generate_options)
        settings = self._settings(generate_options)
        encoding = _stated(add_special_tokens=add_special_tokens, truncation=truncation)
        encoding |= tokenizer_encode_kwargs or {}
        template = _stated(continue_final_message=continue_final_message, tools=tools, documents=documents)
        for text in inputs:
            self._check(text, prefix, template)
        first = settings.get("bos_token_id")
        rows = [
            self._text_tokens(prefix + text, encoding, first)
            if isinstance(text, str)
            else self._chat_tokens(text, template, encoding)
            for text in inputs
        ]
        if handle_long_generation is not None:
            rows = [self._cut(row, handle_long_generation, settings) for row in rows]
        answers: list[Any] = []
        continued = self._continue(rows, generate_options, settings)
        for text, row, sequences in zip(inputs, rows, continued, strict=True):
            if return_tensors:
                answers.append([{"generated_token_ids": [*row, *sequence]} for sequence in sequences])
                continue
            new = [
                self.tokenizer.decode(
                    sequence,
                    skip_special_tokens=skip_special_tokens,
                    clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                )
                for sequence in sequences
            ]
            if return_full_text is not False:
                new = [_joined(text, words, continue_final_message) for words in new]
            answers.append([{"generated_text": words} for words in new])
        return answers

    def _check(self, text: Any, prefix: str, template: Mapping[str, Any]) -> None:
        if isinstance(text, str):
            if template:
                raise ValueError(f"{', '.join(template)}: only for conversations, but this is a text")
        elif not _is_chat(text):
            raise ValueError(f"text-generation requires texts or conversations, got {text!r:.80}")
        elif prefix:
            raise ValueError("prefix: only for texts, but this is a conversation")

    def _text_tokens(self, text: str, encoding: Mapping[str, Any], first: int | None) -> list[int]:
        tokens = list(self.tokenizer(text, **encoding).input_ids)
        return tokens if tokens or first is None else [first]

    def _chat_tokens(self, chat: Any, template: Mapping[str, Any], encoding: Mapping[str, Any]) -> list[int]:
        continues = _continues(chat, template.get("continue_final_message"))
        options = {**template, **encoding, "continue_final_message": continues}
        options.pop("add_special_tokens", None)  # the template adds them
        tokens: list[int] = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=not continues, return_dict=False, **options
        )
        return list(tokens)

    def _continue(
        self, rows: list[list[int]], options: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> list[list[list[int]]]:
        """Return the new tokens of every sequence of every row.

        Limits that include the prompt would include its padding too, and the remaining context depends on
        the length of the prompt. So a batch contains only rows with the same limits.
        """
        options = {"tokenizer": self.tokenizer, **options, **self._defaults(settings)}
        limited = "max_new_tokens" in settings or "max_length" in settings
        counts_prompt = settings.get("min_length") or (limited and "max_new_tokens" not in settings)
        alike = defaultdict[tuple[int, int | None], list[int]](list)
        for place, row in enumerate(rows):
            limit = None if limited else self._default_new_tokens(row)
            alike[len(row) if counts_prompt else 0, limit].append(place)
        new: list[list[list[int]]] = [[] for _ in rows]
        for (_, limit), places in alike.items():
            inputs = self.batch([rows[place] for place in places], side="left")
            output = self.model.generate(**inputs, **options, **_stated(max_new_tokens=limit))
            per_row = len(output) // len(places)
            for i, sequence in enumerate(output[:, inputs["input_ids"].shape[1] :].tolist()):
                place = places[i // per_row]
                new[place].append(self._without_filling(rows[place], sequence, settings))
        return new

    def _without_filling(self, row: list[int], new: list[int], settings: Mapping[str, Any]) -> list[int]:
        """Remove the tokens after the end of a row, which fill it while other rows continue."""
        criteria: list[Criterion] = []
        if ends := GenerationConfig(eos_token_id=settings.get("eos_token_id")).eos_token_ids:
            criteria.append(EosTokenCriteria(ends))
        if texts := settings.get("stop_strings"):
            criteria.append(StopStringCriteria(self.tokenizer, texts))
        text = torch.tensor([row + new])
        for length in range(1, len(new)):
            if any(criterion(text[:, : len(row) + length], None) for criterion in criteria):
                return new[:length]
        return new

    def _settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the generation options of the call, of its config, and of the model, in this priority."""
        own = self.model.generation_config or GenerationConfig.from_model_config(self.model.config)
        settings: dict[str, Any] = {}
        for config in (own, options.get("generation_config")):
            settings |= settings_of(config)
        return _stated(**{**settings, **options})  # None in the call resets a value of the configs

    def _defaults(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {**_DEFAULTS, **_stated(pad_token_id=self.tokenizer.pad_token_id)}
        if not {**defaults, **settings}["do_sample"]:
            del defaults["temperature"]
        return {name: value for name, value in defaults.items() if name not in settings}

    def _default_new_tokens(self, row: list[int]) -> int:
        """Return the default number of new tokens, within the context length if there is room."""
        room = (self.context_length or _DEFAULT_NEW_TOKENS + len(row)) - len(row)
        return min(_DEFAULT_NEW_TOKENS, room) if room > 0 else _DEFAULT_NEW_TOKENS

    def _lengths_with(self, prefix: str, options: Mapping[str, Any]) -> dict[str, int]:
        """Return the limits of whole texts, raised by the length of the prefix."""
        settings, more = (
            self._settings(options),
            len(self.tokenizer(prefix, add_special_tokens=False).input_ids),
        )
        limits = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
        return {
            name: settings[name] + more
            for name, new in limits.items()
            if settings.get(name) and new not in settings
        }

    def _cut(self, row: list[int], how: str, settings: Mapping[str, Any]) -> list[int]:
        if how != "hole":
            raise ValueError(f"unknown handle_long_generation={how!r}; known: hole")
        length = self.context_length
        new = settings.get(
            "max_new_tokens", settings.get("max_length", len(row) + _DEFAULT_NEW_TOKENS) - len(row)
        )
        if length is None or len(row) + new <= length:
            return row
        if not 0 < new < length:
            raise ValueError(f"the context has {length} tokens: {new} new ones leave no room for a prompt")
        return row[new - length :]


def _stated(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _is_chat(inputs: Any) -> bool:
    return (
        isinstance(inputs, list | tuple) and len(inputs) > 0 and all(isinstance(m, Mapping) for m in inputs)
    )


def _continues(chat: Any, stated: bool | None) -> bool:
    """Return whether to continue the last message; by default if it is from the assistant."""
    return chat[-1].get("role") == "assistant" if stated is None else stated


def _joined(text: Any, new: str, continue_final_message: bool | None) -> Any:
    if isinstance(text, str):
        return text + new
    if _continues(text, continue_final_message):
        return [*text[:-1], {**text[-1], "content": text[-1]["content"] + new}]
    return [*text, {"role": "assistant", "content": new}]
