"""Text-to-text generation: an encoder reads a text, a decoder answers."""

from typing import Any

from torchgguf.pipelines.base import Pipeline

_DEFAULT_NEW_TOKENS = 256


class Text2TextGenerationPipeline(Pipeline):
    """Return a list of `{"generated_text": ...}` for each text, one for each requested sequence.

    Options: `return_tensors=True` returns `"generated_token_ids"` instead; `truncation` goes to the
    tokenizer; `skip_special_tokens` and `clean_up_tokenization_spaces` to the decoder. All other options go
    to `generate`; without any length, an answer has at most 256 tokens.
    """

    task = "text2text-generation"

    def answer(
        self,
        inputs: list[Any],
        *,
        return_tensors: bool = False,
        truncation: bool | str | None = None,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        **generate_options: Any,
    ) -> list[Any]:
        """Answer each input."""
        if generate_options.get("return_dict_in_generate"):
            raise ValueError("return_dict_in_generate is unsupported in a pipeline: use model.generate")
        encoding: dict[str, Any] = {} if truncation is None else {"truncation": truncation}
        rows = [self.tokenizer(self.text(text), **encoding).input_ids for text in inputs]
        own = self.model.generation_config
        stated = {**({} if own is None else own.settings()), **generate_options}
        if stated.get("max_new_tokens") is None and stated.get("max_length") is None:
            generate_options["max_new_tokens"] = _DEFAULT_NEW_TOKENS
        output = self.model.generate(
            **self.batch(rows), **{"tokenizer": self.tokenizer, **generate_options}
        ).tolist()
        per_row = len(output) // len(rows)
        answers = [
            {"generated_token_ids": tokens}
            if return_tensors
            else {
                "generated_text": self.tokenizer.decode(
                    tokens,
                    skip_special_tokens=skip_special_tokens,
                    clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                )
            }
            for tokens in output
        ]
        return [answers[i : i + per_row] for i in range(0, len(answers), per_row)]
