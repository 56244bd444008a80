"""Feature extraction: the last hidden state of every token, or one vector of each text."""

from typing import Any

import torch.nn.functional as F

from torchgguf.nn import POOLINGS, pool_states
from torchgguf.pipelines.base import Pipeline


class FeatureExtractionPipeline(Pipeline):
    """Return the last hidden states of each text, `[1][tokens][hidden_size]`; with `pooling`, one vector.

    Options: `pooling` makes one vector `[hidden_size]` of each text: the `"mean"` of its states, or the state
    of its first (`"cls"`) or `"last"` token; `"auto"` is what the model states. If it states nothing, and
    with `"none"` or None, the answer is the states of all tokens. `normalize` divides each vector by its
    length. With `return_tensors` the answer is a tensor instead of lists; `truncation` and `tokenize_kwargs`
    go to the tokenizer.
    """

    task = "feature-extraction"

    def answer(
        self,
        inputs: list[Any],
        *,
        return_tensors: bool = False,
        truncation: bool | str = False,
        tokenize_kwargs: dict[str, Any] | None = None,
        pooling: str | None = None,
        normalize: bool = False,
    ) -> list[Any]:
        """Run the model without its head."""
        how = self.model.pooling if pooling == "auto" else pooling
        if how not in (None, "none", *POOLINGS):
            stated = "the model states it; " if pooling == "auto" else ""
            known = ", ".join(("auto", "none", *POOLINGS))
            raise ValueError(f"pooling={how!r} is unsupported: {stated}pass one of {known}")
        texts = [self.text(text) for text in inputs]
        rows = self.tokenizer(texts, truncation=truncation, **(tokenize_kwargs or {})).input_ids
        self._check_lengths(rows)
        batch = self.batch(rows)
        states = self.model.base_model(**batch, use_cache=False).last_hidden_state
        if how in POOLINGS:
            vectors = pool_states(states, batch["attention_mask"], how, normalize=normalize).cpu()
            return [*vectors] if return_tensors else vectors.tolist()
        states = (F.normalize(states.float(), dim=-1) if normalize else states).cpu()
        features = [state[None, : len(row)] for state, row in zip(states, rows, strict=True)]
        return features if return_tensors else [feature.tolist() for feature in features]

    def _check_lengths(self, rows: list[list[int]]) -> None:
        """Refuse texts that a model with a table of positions has none for."""
        longest, limit = max(map(len, rows)), self.context_length
        if (
            limit is not None
            and longest > limit
            and getattr(self.model.base_model, "ends_with_context", False)
        ):
            raise ValueError(
                f"the text has {longest} tokens, but the model's context is {limit}: shorten it, or pass "
                f"truncation=True and tokenize_kwargs={{'max_length': {limit}}}"
            )
