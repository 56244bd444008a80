"""Feature extraction: the last hidden state of every token."""

from typing import Any

from torchgguf.pipelines.base import Pipeline


class FeatureExtractionPipeline(Pipeline):
    """Return the last hidden states of each text, `[1][tokens][hidden_size]`.

    Options: with `return_tensors` the answer is a tensor `(1, tokens, hidden_size)` instead of lists;
    `truncation` and `tokenize_kwargs` go to the tokenizer.
    """

    task = "feature-extraction"

    def answer(
        self,
        inputs: list[Any],
        *,
        return_tensors: bool = False,
        truncation: bool | str = False,
        tokenize_kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Run the model without its head."""
        texts = [self.text(text) for text in inputs]
        rows = self.tokenizer(texts, truncation=truncation, **(tokenize_kwargs or {})).input_ids
        states = self.model.base_model(**self.batch(rows), use_cache=False).last_hidden_state.cpu()
        features = [state[None, : len(row)] for state, row in zip(states, rows, strict=True)]
        return features if return_tensors else [feature.tolist() for feature in features]
