"""`TrainingSample`: tokens with what of them is learnt, made by a tokenizer and its chat template."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchgguf.models.blocks.losses import IGNORED
from torchgguf.tokenization import ChatTemplateError, Tokenizer
from torchgguf.training.data.formats import ChatExample, Completion, Example, FormatError


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """Tokens of one text, and labels: the same tokens, or `IGNORED`.

    The first label is always `IGNORED`: no token is before it to predict it from.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def trained(self) -> int:
        """The number of tokens that are learnt."""
        return sum(label != IGNORED for label in self.labels)

    def cut(self, first: int, last: int) -> "TrainingSample":
        """Return a part, from token `first` up to `last`, as a text of its own."""
        return _sample(self.input_ids[first:last], [label != IGNORED for label in self.labels[first:last]])


@dataclass(frozen=True)
class ExampleEncoder:
    """Makes samples of examples.

    Attributes:
        tokenizer: encodes texts, and has the chat template.
        on_prompts: whether prompts are learnt as well.
    """

    tokenizer: Tokenizer
    on_prompts: bool = False

    def encode(self, example: Example) -> tuple[TrainingSample, str | None]:
        """Return an example as a sample, and what is wrong with it or None.

        Raises:
            FormatError: nothing of it is learnt, or the chat template rejects it.
        """
        if isinstance(example, Completion):
            return self._completion(example), None
        return self._conversation(example)

    def _completion(self, example: Completion) -> TrainingSample:
        """Encode a prompt and what follows it, with the tokens for the beginning and the end of a text."""
        encoding = self.tokenizer(example.prompt + example.completion)
        ids = list(encoding["input_ids"])
        begin = len(example.prompt)
        places = [encoding.token_to_chars(i) for i in range(len(ids))]
        learnt = [place is not None and (place.end > begin or not begin) for place in places]
        end = self.tokenizer.eos_token_id
        if end is not None and ids[-1:] != [end]:
            ids.append(end)
            learnt.append(True)
        return _sample(ids, [True] * len(ids) if self.on_prompts else learnt)

    def _conversation(self, example: ChatExample) -> tuple[TrainingSample, str | None]:
        """Encode a conversation by the chat template, as `apply_chat_template` does."""
        try:
            text, spans, rewritten = self._answers(example)
        except (ChatTemplateError, TypeError) as error:
            raise FormatError(f"the chat template rejects it ({error}); left out") from None
        encoding = self.tokenizer(text, add_special_tokens=False)
        ids = encoding["input_ids"]
        if self.on_prompts:
            return _sample(ids, [True] * len(ids)), None
        places = [encoding.token_to_chars(i) for i in range(len(ids))]
        learnt = [False] * len(ids)
        for begin, end in spans:
            inside = [i for i, at in enumerate(places) if at and at.end > begin and at.start < end]
            for i in self._up_to_end(ids, inside):
                learnt[i] = True
        if not any(learnt):
            raise FormatError("the chat template writes no answer; left out")
        what = "the chat template rewrites earlier answers when others follow; only the last one is learnt"
        return _sample(ids, learnt), what if rewritten else None

    def _answers(self, example: ChatExample) -> tuple[str, list[tuple[int, int]], bool]:
        """Return the text, the spans of the answers in it, and whether others are not as they were written.

        An answer begins where the prompt for it ends, and ends where the text ends without later messages.
        """
        messages, rewritten, spans = list(example.messages), False, []
        text = self._render(messages, example)
        for i, message in enumerate(messages):
            if i < example.first or message["role"] != "assistant":
                continue
            so_far = text if i == len(messages) - 1 else self._render(messages[: i + 1], example)
            if not text.startswith(so_far):
                rewritten = True
                continue
            begin = self._begin(messages[:i], so_far, example) if i else 0
            if begin is None:
                rewritten = True
            else:
                spans.append((begin, len(so_far)))
        return text, spans, rewritten

    def _begin(self, prompt: Sequence[Mapping[str, Any]], text: str, example: ChatExample) -> int | None:
        """Return where in a text the answer to a prompt begins; None if the text has another prompt.

        What is written to ask for an answer, such as the start of a reasoning, may be missing where there is
        one.
        """
        asking = self._render(prompt, example, add_generation_prompt=True)
        if text.startswith(asking):
            return len(asking)
        if not text.startswith(self._render(prompt, example)):
            return None
        return next(i for i, (a, b) in enumerate(zip(asking + "\0", text + "\1", strict=False)) if a != b)

    def _render(self, messages: Sequence[Mapping[str, Any]], example: ChatExample, **options: Any) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tools=example.tools, tokenize=False, **options
        )
        return text

    def _up_to_end(self, ids: Sequence[int], span: list[int]) -> list[int]:
        """Leave out what templates write after the token that ends an answer: nothing is read there."""
        ends = [i for i in span if ids[i] in self.tokenizer.eog_token_ids]
        return [i for i in span if i <= ends[-1]] if ends else span


def _sample(ids: Sequence[int], learnt: Sequence[bool]) -> TrainingSample:
    labels = [token if is_learnt else IGNORED for token, is_learnt in zip(ids, learnt, strict=True)]
    return TrainingSample(tuple(ids), (IGNORED, *labels[1:]))


def split_sample(sample: TrainingSample, longest: int) -> Iterator[TrainingSample]:
    """Yield a long text in parts of up to `longest` tokens, those without anything to learn left out."""
    for first in range(0, len(sample), longest):
        part = sample.cut(first, first + longest)
        if part.trained:
            yield part
