"""Logits processors: each changes the scores of the next token, (batch, vocabulary) float32.

Names, arguments and definitions are those of transformers (`generation/logits_process.py`), so the same
settings leave the same distribution. Those here serve every way of decoding; what shapes a distribution to
draw from is in `logits_warp`.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgguf.generation.ranges import as_tokens

NEVER = float("-inf")

Processor = Callable[[Tensor, Tensor], Tensor]
"""`(input_ids (batch, length), scores (batch, vocabulary)) -> scores`; what users may pass to `generate`."""

Tokens = int | Sequence[int] | Tensor


class LogitsProcessor:
    """Base class of the processors."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores (batch, vocabulary), given the tokens so far (batch, length)."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(input_ids, scores)")

    def narrow(self, scores: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the surviving `(scores, token ids)`, both (batch, few), or None where that saves nothing.

        Processors for sampling only may return just the tokens that survive them. So everything after them
        works on few tokens, not on the whole vocabulary.
        """
        return None


class LogitsProcessorList(list[Any]):
    """A list of processors, which is a processor too: it applies them in order."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **arguments: Any) -> Tensor:
        """Return new scores.

        Args:
            input_ids: the tokens so far, (batch, length).
            scores: (batch, vocabulary).
            arguments: more arguments, for the processors that declare any.

        Raises:
            ValueError: a processor declares arguments that are missing.
        """
        for process in self:
            more = list(inspect.signature(process.__call__).parameters)[2:]
            if missing := [name for name in more if name not in arguments]:
                raise ValueError(f"{type(process).__name__} requires the arguments {', '.join(missing)}")
            scores = process(input_ids, scores, **arguments) if more else process(input_ids, scores)
        return scores


def token_list(tokens: Tokens) -> list[int]:
    """Return token ids as a list, in whatever form transformers accepts them."""
    return as_tokens(tokens.flatten().tolist() if isinstance(tokens, Tensor) else tokens)


def _check_vocabulary(token: int, scores: Tensor) -> None:
    if token >= scores.shape[-1]:
        raise ValueError(f"tokens must be below the vocabulary's size of {scores.shape[-1]}, got {token}")


def _index(token_ids: Sequence[int], scores: Tensor) -> Tensor:
    """Return token ids as an index into scores.

    Raises:
        ValueError: a token is outside the vocabulary.
    """
    _check_vocabulary(max(token_ids, default=0), scores)
    return torch.tensor(token_ids, dtype=torch.long, device=scores.device)


def _known(token_ids: Sequence[int], scores: Tensor) -> Tensor:
    """Return those of the token ids that are in the vocabulary, as an index into scores."""
    return _index([token for token in token_ids if token < scores.shape[-1]], scores)


class SequenceBiasLogitsProcessor(LogitsProcessor):
    """Add to the score of a sequence's last token, where the tokens so far end in the rest of it.

    Args:
        sequence_bias: what to add by token ids, -inf to forbid the sequence: a dict from tuples, or pairs.

    Raises:
        ValueError: a sequence is empty or contains negative ids.
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Sequence[Any]]) -> None:
        self.sequence_bias = sequence_bias
        pairs = sequence_bias.items() if isinstance(sequence_bias, Mapping) else sequence_bias
        sequences = {tuple(tokens): float(bias) for tokens, bias in pairs}
        if any(not tokens or min(tokens) < 0 for tokens in sequences):
            raise ValueError(f"sequences must be lists of token ids, got {list(sequences)}")
        self._largest = max((token for tokens in sequences for token in tokens), default=0)
        groups = defaultdict(list)  # those of one length are compared at once
        for tokens, bias in sequences.items():
            groups[len(tokens)].append((tokens, bias))
        self._groups = [
            (torch.tensor([tokens for tokens, _ in group]), torch.tensor([bias for _, bias in group]))
            for group in groups.values()
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        _check_vocabulary(self._largest, scores)
        device, length = scores.device, input_ids.shape[1]
        self._groups = [(sequences.to(device), biases.to(device)) for sequences, biases in self._groups]
        total = torch.zeros_like(scores)
        for sequences, biases in self._groups:
            start = length + 1 - sequences.shape[1]
            if start >= 0:
                fits = (input_ids[:, None, start:] == sequences[:, :-1]).all(-1)
                total.index_add_(1, sequences[:, -1], torch.where(fits, biases, 0.0).to(total.dtype))
        return scores + total


class NoBadWordsLogitsProcessor(SequenceBiasLogitsProcessor):
    """Forbid sequences of tokens, except those of one token that ends the text: a text may always end.

    Args:
        bad_words_ids: the sequences.
        eos_token_id: the tokens that end the text.
    """

    def __init__(self, bad_words_ids: Sequence[Sequence[int]], eos_token_id: Tokens | None = None) -> None:
        self.bad_word_ids = bad_words_ids
        ends = [] if eos_token_id is None else token_list(eos_token_id)
        super().__init__({tuple(w): NEVER for w in bad_words_ids if len(w) != 1 or w[0] not in ends})


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Divide the positive scores of tokens that occurred by `penalty`, multiply the negative ones.

    From CTRL (Keskar et al. 2019, arXiv 1909.05858).

    Args:
        penalty: above 0; 1 changes nothing.
        prompt_ignore_length: how many tokens at the left of each row do not count, as a number or (batch,).
            A row's last token counts in any case.

    Raises:
        ValueError: the penalty is not above 0.
    """

    def __init__(self, penalty: float, prompt_ignore_length: int | Tensor | None = None) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty must be above 0, got {penalty}")
        self.penalty = penalty
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        ignored = self.prompt_ignore_length
        if isinstance(ignored, Tensor) and ignored.numel() > 1:
            # A row's last token stands in for those that do not count.
            position = torch.arange(input_ids.shape[1], device=input_ids.device)
            ignored = ignored.to(input_ids.device)
            input_ids = torch.where(position < ignored[:, None], input_ids[:, -1:], input_ids)
        elif ignored is not None:
            input_ids = input_ids[:, int(ignored) :]
        seen = scores.gather(1, input_ids)
        seen = torch.where(seen < 0, seen * self.penalty, seen / self.penalty)
        return scores.scatter(1, input_ids, seen)


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Forbid the tokens by which a sequence of `ngram_size` tokens would occur again.

    Args:
        ngram_size: above 0.

    Raises:
        ValueError: the size is not above 0.
    """

    def __init__(self, ngram_size: int) -> None:
        if not isinstance(ngram_size, int) or ngram_size <= 0:
            raise ValueError(f"ngram_size must be a whole number above 0, got {ngram_size}")
        self.ngram_size = ngram_size

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        length = input_ids.shape[1]
        if length < self.ngram_size:
            return scores
        grams = input_ids.unfold(1, self.ngram_size, 1)  # (batch, length - size + 1, size)
        begun = (grams[..., :-1] == input_ids[:, None, length + 1 - self.ngram_size :]).all(-1)
        return scores.scatter_add(1, grams[..., -1], torch.where(begun, NEVER, 0.0).to(scores.dtype))


class MinLengthLogitsProcessor(LogitsProcessor):
    """Forbid the tokens that end the text until it has `min_length` tokens, the prompt included.

    Args:
        min_length: in tokens.
        eos_token_id: the tokens that end the text.
        device: has no effect: tensors follow the scores.

    Raises:
        ValueError: the length is below 0.
    """

    def __init__(self, min_length: int, eos_token_id: Tokens, device: Any = "cpu") -> None:
        if not isinstance(min_length, int) or min_length < 0:
            raise ValueError(f"min_length must be a whole number, at least 0, got {min_length}")
        self.min_length = min_length
        self.eos_token_id = token_list(eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if input_ids.shape[1] >= self.min_length:
            return scores
        return scores.index_fill(1, _known(self.eos_token_id, scores), NEVER)


class MinNewTokensLengthLogitsProcessor(MinLengthLogitsProcessor):
    """Forbid the tokens that end the text until `min_new_tokens` tokens follow the prompt.

    Args:
        prompt_length_to_skip: the length of the prompt, in tokens.
        min_new_tokens: in tokens.
        eos_token_id: the tokens that end the text.
        device: has no effect: tensors follow the scores.

    Raises:
        ValueError: a length is below 0.
    """

    def __init__(
        self, prompt_length_to_skip: int, min_new_tokens: int, eos_token_id: Tokens, device: Any = "cpu"
    ) -> None:
        if min(prompt_length_to_skip, min_new_tokens) < 0:
            raise ValueError(f"lengths must be at least 0, got {prompt_length_to_skip} and {min_new_tokens}")
        super().__init__(prompt_length_to_skip + min_new_tokens, eos_token_id)
        self.prompt_length_to_skip = prompt_length_to_skip
        self.min_new_tokens = min_new_tokens


class PrefixConstrainedLogitsProcessor(LogitsProcessor):
    """Allow only the tokens that a function allows after each text.

    Args:
        prefix_allowed_tokens_fn: `(number of the prompt, tokens so far (length,)) -> allowed token ids`.
        num_beams: how many texts of each prompt there are.
    """

    def __init__(
        self, prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]], num_beams: int
    ) -> None:
        self._allowed = prefix_allowed_tokens_fn
        self._num_beams = num_beams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class.

        Raises:
            ValueError: no token is allowed, or one is outside the vocabulary.
        """
        mask = torch.full_like(scores, NEVER)
        for row, text in enumerate(input_ids):
            prompt = row // self._num_beams
            allowed = list(self._allowed(prompt, text))
            if not allowed:
                raise ValueError(f"prefix_allowed_tokens_fn allows no token after a text of prompt {prompt}")
            mask[row, _index([int(token) for token in allowed], scores)] = 0
        return scores + mask


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Allow only these tokens, each as likely, as the last of `max_length` tokens.

    Args:
        max_length: in tokens, the prompt included.
        eos_token_id: the tokens that end the text.
        device: has no effect: tensors follow the scores.
    """

    def __init__(self, max_length: int, eos_token_id: Tokens, device: Any = "cpu") -> None:
        self.max_length = max_length
        self.eos_token_id = token_list(eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        if input_ids.shape[1] != self.max_length - 1:
            return scores
        return torch.full_like(scores, NEVER).index_fill_(1, _index(self.eos_token_id, scores), 0.0)


class ForcedBOSTokenLogitsProcessor(ForcedEOSTokenLogitsProcessor):
    """Allow only one token as the second one of a text.

    Args:
        bos_token_id: the token.
    """

    def __init__(self, bos_token_id: int) -> None:
        super().__init__(2, bos_token_id)
        self.bos_token_id = bos_token_id


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """Replace scores that are not numbers by 0, and infinite ones by the largest and the lowest number."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores.nan_to_num(nan=0.0)


class ExponentialDecayLengthPenalty(LogitsProcessor):
    """Raise the scores of the tokens that end the text, from a number of tokens on.

    After n more tokens by `factor ** n - 1` of their magnitude.

    Args:
        exponential_decay_length_penalty: the number of new tokens to begin after, and the factor.
        eos_token_id: the tokens that end the text.
        input_ids_seq_length: the length of the prompt, in tokens.
    """

    def __init__(
        self,
        exponential_decay_length_penalty: tuple[int, float],
        eos_token_id: Tokens,
        input_ids_seq_length: int,
    ) -> None:
        self.regulation_start = exponential_decay_length_penalty[0] + input_ids_seq_length
        self.regulation_factor = exponential_decay_length_penalty[1]
        self.eos_token_id = token_list(eos_token_id)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        over = input_ids.shape[1] - self.regulation_start
        if over <= 0:
            return scores
        ends = _known(self.eos_token_id, scores)
        magnitude = scores[:, ends].abs().nan_to_num(posinf=0.0)  # what is forbidden (-inf) stays so
        return scores.index_add(1, ends, magnitude * (self.regulation_factor**over - 1))


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Forbid these tokens.

    Args:
        suppress_tokens: their ids; those outside the vocabulary do not matter.
        device: has no effect: tensors follow the scores.
    """

    def __init__(self, suppress_tokens: Tokens, device: Any = "cpu") -> None:
        self.suppress_tokens = token_list(suppress_tokens)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return scores.index_fill(1, _known(self.suppress_tokens, scores), NEVER)


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """Forbid these tokens after `begin_index` tokens.

    Args:
        begin_suppress_tokens: their ids; those outside the vocabulary do not matter.
        begin_index: in tokens, the prompt included.
        device: has no effect: tensors follow the scores.
    """

    def __init__(self, begin_suppress_tokens: Tokens, begin_index: int, device: Any = "cpu") -> None:
        super().__init__(begin_suppress_tokens)
        self.begin_index = begin_index

    def set_begin_index(self, begin_index: int) -> None:
        """Set after how many tokens the tokens are forbidden."""
        self.begin_index = begin_index

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return new scores; see the class."""
        return super().__call__(input_ids, scores) if input_ids.shape[1] == self.begin_index else scores
