"""Outputs of `generate` with `return_dict_in_generate`, named as in transformers, and how they are gathered.

Shapes: B rows, R sequences returned, V vocabulary. Rows are sequences, or with beams `num_beams` a prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchgguf.nn import ModelOutput

Steps = tuple[Tensor, ...]
LayersOfSteps = tuple[tuple[Tensor, ...], ...]


class GenerateDecoderOnlyOutput(ModelOutput):
    """Output of greedy decoding and sampling.

    Attributes:
        sequences: prompts and continuations, `(R, length)`.
        scores: of each step, those by which the token was chosen, `(B, V)`, after all processing.
        logits: the same as the model made it.
        attentions: of each step the model's `attentions`; the first step read the prompts.
        hidden_states: of each step the model's `hidden_states`.
        cache: keys and values; it holds all tokens but the last.
    """

    sequences: Tensor
    scores: Steps | None = None
    logits: Steps | None = None
    attentions: LayersOfSteps | None = None
    hidden_states: LayersOfSteps | None = None
    cache: Any = None


class GenerateBeamDecoderOnlyOutput(ModelOutput):
    """Output of beam search.

    Attributes:
        sequences: prompts and continuations, `(R, length)`, those of a prompt from best to worst.
        sequences_scores: of each the sum of its tokens' scores, over its length to the power of
            `length_penalty`, `(R,)`; if `output_scores`.
        scores: as in `GenerateDecoderOnlyOutput`, but log-probabilities.
        logits, attentions, hidden_states, cache: as there.
        beam_indices: of each new token the row that it was chosen from, `(R, new tokens)`; -1 after the end.
    """

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Steps | None = None
    logits: Steps | None = None
    beam_indices: Tensor | None = None
    attentions: LayersOfSteps | None = None
    hidden_states: LayersOfSteps | None = None
    cache: Any = None


class GenerateEncoderDecoderOutput(ModelOutput):
    """Output of greedy decoding and sampling by a decoder that follows an encoder.

    Attributes:
        sequences: the decoder's texts, `(R, length)`.
        scores, logits, cache: as in `GenerateDecoderOnlyOutput`.
        encoder_attentions, encoder_hidden_states: what the encoder returned for the prompts.
        decoder_attentions, cross_attentions, decoder_hidden_states: of each step what the decoder returned.
    """

    sequences: Tensor
    scores: Steps | None = None
    logits: Steps | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: LayersOfSteps | None = None
    cross_attentions: LayersOfSteps | None = None
    decoder_hidden_states: LayersOfSteps | None = None
    cache: Any = None


class GenerateBeamEncoderDecoderOutput(ModelOutput):
    """Output of beam search by a decoder that follows an encoder.

    Attributes:
        sequences: the decoder's texts, `(R, length)`, those of a prompt from best to worst.
        sequences_scores, beam_indices: as in `GenerateBeamDecoderOnlyOutput`.
        scores, logits, cache: as there.
        encoder_attentions, encoder_hidden_states: as in `GenerateEncoderDecoderOutput`.
        decoder_attentions, cross_attentions, decoder_hidden_states: as there.
    """

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Steps | None = None
    logits: Steps | None = None
    beam_indices: Tensor | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: LayersOfSteps | None = None
    cross_attentions: LayersOfSteps | None = None
    decoder_hidden_states: LayersOfSteps | None = None
    cache: Any = None


GenerateOutput = (
    GenerateDecoderOnlyOutput
    | GenerateBeamDecoderOnlyOutput
    | GenerateEncoderDecoderOutput
    | GenerateBeamEncoderDecoderOutput
)

_STATES = ("attentions", "hidden_states")


def generate_output(sequences: Tensor, encoded: Any, *, is_beam: bool, **found: Any) -> GenerateOutput:
    """Return the output of a call.

    Args:
        sequences: the texts.
        encoded: what an encoder returned for the prompts; None: there is no encoder.
        is_beam: whether it is of beam search.
        found: further fields; names of states are those of a model without an encoder.
    """
    if encoded is None:
        kind = GenerateBeamDecoderOnlyOutput if is_beam else GenerateDecoderOnlyOutput
        return kind(sequences, **found)
    of_decoder = {f"decoder_{name}": found.pop(name) for name in _STATES if name in found}
    of_encoder = {f"encoder_{name}": getattr(encoded, name, None) for name in _STATES}
    whole = GenerateBeamEncoderDecoderOutput if is_beam else GenerateEncoderDecoderOutput
    return whole(sequences, **found, **of_decoder, **of_encoder)


class Record:
    """Gathers, step by step, what the output is to hold.

    Args:
        wanted: names of what is made of the model's logits.
        states: names of what the model shall return besides.
    """

    def __init__(self, wanted: Iterable[str], states: Iterable[str] = ()) -> None:
        self.states = tuple(states)
        self._steps: dict[str, list[Any]] = {name: [] for name in (*wanted, *self.states)}

    def add(self, **step: Any) -> None:
        """Store what is wanted of this step."""
        for name, values in self._steps.items():
            values.append(step[name])

    @property
    def scores(self) -> Steps | None:
        """The scores so far, if they are wanted."""
        return tuple(self._steps["scores"]) if "scores" in self._steps else None

    def fields(self) -> dict[str, tuple[Any, ...]]:
        """Return all that was wanted, by name."""
        return {name: tuple(values) for name, values in self._steps.items()}


def compute_transition_scores(
    sequences: Tensor, scores: Sequence[Tensor], beam_indices: Tensor | None, normalize_logits: bool
) -> Tensor:
    """See `GenerationMixin.compute_transition_scores`."""
    table = torch.stack(tuple(scores), dim=1)  # (B, steps, V)
    if normalize_logits:
        table = table.log_softmax(-1)
    if beam_indices is None:
        beam_indices = torch.arange(len(table), device=table.device)[:, None].expand(-1, table.shape[1])
    chosen = beam_indices >= 0
    new = int(chosen.sum(1).max())
    step = torch.arange(new, device=table.device)
    tokens, rows = sequences[:, sequences.shape[1] - new :], beam_indices[:, :new].clamp(min=0).long()
    return table[rows, step, tokens].masked_fill(~chosen[:, :new], 0.0)
