"""Text classification: labels of whole texts, with scores."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchgguf.pipelines.base import Pipeline

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


class TextClassificationPipeline(Pipeline):
    """Return `{"label": ..., "score": ...}` for each text, or for each `{"text": ..., "text_pair": ...}`.

    Options: `top_k` returns a list of so many labels, the most likely first (None: all);
    `function_to_apply` converts logits to scores: "softmax", "sigmoid" or "none", by default by the
    `problem_type` of the config. All other options go to the tokenizer.
    """

    task = "text-classification"

    def is_single(self, inputs: Any) -> bool:
        """Return whether this is one text or one pair, not several."""
        return isinstance(inputs, str | Mapping)

    def single(self, answer: Any, options: Mapping[str, Any]) -> Any:
        """Return a list also for a single text, as transformers does."""
        return answer if "top_k" in options else [answer]

    def answer(
        self,
        inputs: list[Any],
        *,
        function_to_apply: str | None = None,
        top_k: int | None = -1,
        **tokenizer_options: Any,
    ) -> list[Any]:
        """Classify each text; without `top_k` only the best label is returned."""
        config = self.model.config
        name = (function_to_apply or self._default_function()).lower()
        if name not in SCORES:
            known = ", ".join(SCORES)
            raise ValueError(f"unknown function_to_apply={function_to_apply!r}; known: {known}")
        rows = [self._tokens(text, tokenizer_options) for text in inputs]
        # A classifier finds the last token by the padding token; without one, a batch has only one text.
        batches = [rows] if config.pad_token_id is not None else [[row] for row in rows]
        logits = torch.cat([self._logits(batch) for batch in batches])
        answers = []
        for scores in SCORES[name](logits.float()).cpu():
            order = scores.argsort(descending=True, stable=True).tolist()
            labels = [{"label": config.id2label[i], "score": scores[i].item()} for i in order]
            answers.append(labels[0] if top_k == -1 else labels[:top_k])
        return answers

    def _tokens(self, text: Any, options: dict[str, Any]) -> list[int]:
        if isinstance(text, Mapping):
            if not isinstance(text.get("text"), str) or text.keys() - {"text", "text_pair"}:
                raise ValueError('a pair of texts must be {"text": ..., "text_pair": ...}')
            return list(self.tokenizer(**text, **options).input_ids)
        return list(self.tokenizer(self.text(text), **options).input_ids)

    def _logits(self, rows: list[list[int]]) -> Tensor:
        inputs = self.batch(rows)
        pad = self.model.config.pad_token_id
        if pad is not None:  # the tokenizer may use another id for it
            inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, pad)
        logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits

    def _default_function(self) -> str:
        config = self.model.config
        if config.problem_type == "regression":
            return "none"
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return "sigmoid"
        return "softmax"
