"""Text generation: texts continued, conversations answered."""

from collections.abc import Mapping
from typing import Any

from torchgguf.pipelines.base import Pipeline

# What holds where neither the call nor the model's generation_config says otherwise, as in transformers.
DEFAULTS = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
_LENGTHS = ("max_new_tokens", "max_length")
_RETURNS = "return_full_text, return_text and return_tensors cannot go together"


class TextGenerationPipeline(Pipeline):
    """A list of `{"generated_text": ...}` of each text, one for every sequence asked for.

    A conversation, a list of `{"role": ..., "content": ...}`, is answered: `generated_text` is then the
    conversation with the answer. One that ends with the assistant's own words has those continued.

    Options: `return_full_text=False` leaves the prompt out; `return_tensors=True` gives
    `"generated_token_ids"` instead; `prefix` comes before every text; `stop_sequence`, one text or several,
    ends a continuation; `handle_long_generation="hole"` cuts the start of a prompt that is too long;
    `continue_final_message`, `tools`, `documents` are the chat template's; `add_special_tokens`,
    `truncation` and `tokenizer_encode_kwargs` the tokenizer's; `skip_special_tokens` and
    `clean_up_tokenization_spaces` are the decoder's. All others are those of `generate`.
    """

    task = "text-generation"

    def is_single(self, inputs: Any) -> bool:
        """Tell one text or conversation from several."""
        return isinstance(inputs, str) or _is_chat(inputs)

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
        clean_up_tokenization_spaces: bool = False,
        **generate_options: Any,
    ) -> list[Any]:
        """Continue each input."""
        if sum(option is not None for option in (return_full_text, return_text, return_tensors)) > 1:
            raise ValueError(_RETURNS)
        if generate_options.get("return_dict_in_generate"):
            raise ValueError("return_dict_in_generate is for model.generate: a pipeline returns texts")
        stated = {"add_special_tokens": add_special_tokens, "truncation": truncation}
        encoding = {k: v for k, v in stated.items() if v is not None} | (tokenizer_encode_kwargs or {})
        template = {"tools": tools, "documents": documents}
        rows = [
            self._chat_tokens(text, _continues(text, continue_final_message), template, encoding)
            if _is_chat(text)
            else list(self.tokenizer(prefix + text, **encoding).input_ids)
            for text in inputs
        ]
        options = self._generate_options(generate_options, max(map(len, rows)))
        if stop_sequence is not None:
            options |= {"stop_strings": stop_sequence, "tokenizer": self.tokenizer}
        if handle_long_generation is not None:
            rows = [self._cut(row, handle_long_generation, options) for row in rows]
        answers = []
        for text, row, sequences in zip(inputs, rows, self._continue(rows, options), strict=True):
            records: list[dict[str, Any]] = []
            for sequence in sequences:
                if return_tensors:
                    records.append({"generated_token_ids": [*row, *sequence]})
                    continue
                new = self.tokenizer.decode(
                    sequence,
                    skip_special_tokens=skip_special_tokens,
                    clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                )
                whole = _joined(text, new, continue_final_message) if return_full_text is not False else new
                records.append({"generated_text": whole})
            answers.append(records)
        return answers

    def _continue(self, rows: list[list[int]], options: dict[str, Any]) -> list[list[list[int]]]:
        """Return the new tokens of every sequence of every row."""
        if not any(rows):  # nothing to start from but the bos token
            output = self.model.generate(None, **options)
            return [[sequence.tolist()[1:] for sequence in output]] * len(rows)
        inputs = self.batch(rows, side="left")
        output = self.model.generate(**inputs, **options)
        length = inputs["input_ids"].shape[1]
        per_row = len(output) // len(rows)
        new = [sequence[length:].tolist() for sequence in output]
        return [new[i : i + per_row] for i in range(0, len(new), per_row)]

    def _chat_tokens(
        self, chat: Any, continues: bool, template: dict[str, Any], encoding: dict[str, Any]
    ) -> list[int]:
        encoding.pop("add_special_tokens", None)  # the template writes those itself
        tokens: list[int] = self.tokenizer.apply_chat_template(
            chat,
            add_generation_prompt=not continues,
            continue_final_message=continues,
            return_dict=False,
            **{name: value for name, value in template.items() if value is not None},
            **encoding,
        )
        return list(tokens)

    def _generate_options(self, options: dict[str, Any], prompt: int) -> dict[str, Any]:
        """Add the defaults where nobody has said anything; the text stays within what the model can read."""
        given = options.get("generation_config")
        own = getattr(self.model, "generation_config", None)
        said = {
            name: value
            for config in (own, given)
            if config is not None
            for name, value in config.to_dict().items()
            if value is not None
        } | options
        defaults = {name: value for name, value in DEFAULTS.items() if name not in said}
        if any(name in said for name in _LENGTHS):
            defaults.pop("max_new_tokens", None)
        elif prompt < (length := self.model.config.max_position_embeddings):
            defaults["max_new_tokens"] = min(DEFAULTS["max_new_tokens"], length - prompt)
        if not {**defaults, **said}.get("do_sample"):
            defaults.pop("temperature", None)
        return {**defaults, **options}

    def _cut(self, row: list[int], how: str, options: dict[str, Any]) -> list[int]:
        if how != "hole":
            raise ValueError(f"handle_long_generation={how!r} is unknown; 'hole' is known")
        length = self.model.config.max_position_embeddings
        room = length - options.get("max_new_tokens", 0)
        if room < 1:
            raise ValueError(f"max_new_tokens leaves no room for a prompt: the model reads {length} tokens")
        return row[-room:]


def _is_chat(inputs: Any) -> bool:
    return (
        isinstance(inputs, list | tuple) and len(inputs) > 0 and all(isinstance(m, Mapping) for m in inputs)
    )


def _continues(chat: Any, stated: bool | None) -> bool:
    """Few models know several messages of the assistant in a row: a last one is taken for a beginning."""
    return chat[-1].get("role") == "assistant" if stated is None else stated


def _joined(text: Any, new: str, continue_final_message: bool | None) -> Any:
    if isinstance(text, str):
        return text + new
    if _continues(text, continue_final_message):
        return [*text[:-1], {**text[-1], "content": text[-1]["content"] + new}]
    return [*text, {"role": "assistant", "content": new}]
