"""Token classification: labels of the tokens in a text, or of entities."""

from typing import Any

from torch import Tensor

from torchgguf.pipelines.base import Pipeline
from torchgguf.pipelines.entities import WORD_SCORES, LabelledSpan, entities, words


class TokenClassificationPipeline(Pipeline):
    """Return a list of `{"entity", "score", "index", "word", "start", "end"}` for each text, one a token.

    Options: `aggregation_strategy` joins tokens to entities, which have `"entity_group"` in place of
    `"entity"` and `"index"`. "simple" joins neighbours with the same label. "first", "max" and "average"
    first choose one label for each word, that is for text between spaces. `ignore_labels` are dropped, by
    default `["O"]`.
    """

    task = "token-classification"

    def answer(
        self,
        inputs: list[Any],
        *,
        aggregation_strategy: str = "none",
        ignore_labels: list[str] | None = None,
        truncation: bool | str = False,
    ) -> list[Any]:
        """Label the tokens of each text."""
        if aggregation_strategy not in WORD_SCORES:
            known = ", ".join(WORD_SCORES)
            raise ValueError(f"unknown aggregation_strategy={aggregation_strategy!r}; known: {known}")
        ignored = ["O"] if ignore_labels is None else ignore_labels
        texts = [self.text(text) for text in inputs]
        encoded = self.tokenizer(texts, return_offsets_mapping=True, truncation=truncation)
        logits = self.model(**self.batch(encoded.input_ids), use_cache=False).logits.float().cpu()
        labels, answers = self.model.config.id2label, []
        for i, text in enumerate(texts):
            ids, offsets = encoded.input_ids[i], encoded.offset_mapping[i]
            tokens = self._tokens(text, ids, offsets, logits[i].softmax(-1))
            if aggregation_strategy == "none":
                found = [self._labelled(token, index) for index, token in tokens.items()]
            else:
                spans = words(list(tokens.values()), aggregation_strategy)
                found = entities(spans, labels, self.tokenizer.decode)
            answers.append([e for e in found if e.get("entity", e.get("entity_group")) not in ignored])
        return answers

    def _tokens(self, text: str, ids: list[int], offsets: Any, scores: Tensor) -> dict[int, LabelledSpan]:
        """Return the tokens of the text by position, without the special tokens around it."""
        tokens, added = {}, set(self.tokenizer.all_special_ids)
        for index, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
            if token not in added:
                goes_on = start > 0 and " " not in text[start - 1 : start + 1]
                tokens[index] = LabelledSpan([token], int(start), int(end), scores[index], goes_on)
        return tokens

    def _labelled(self, token: LabelledSpan, index: int) -> dict[str, Any]:
        best = int(token.scores.argmax())
        return {
            "entity": self.model.config.id2label[best],
            "score": token.scores[best].item(),
            "index": index,
            "word": self.tokenizer.convert_ids_to_tokens(token.token_ids[0]),
            "start": token.start,
            "end": token.end,
        }


NerPipeline = TokenClassificationPipeline
