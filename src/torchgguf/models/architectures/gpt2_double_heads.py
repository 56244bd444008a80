"""GPT-2 with two heads: one predicts the next token, the other chooses among texts.

Shape letters: B batch, C choices of a question, T positions.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.architectures.gpt2 import GPT2LMHeadModel, GPT2Model
from torchgguf.models.blocks.losses import next_token_loss
from torchgguf.nn import Cache, Linear, ModelOutput, find_activation


class GPT2DoubleHeadsModelOutput(ModelOutput):
    """Output of `GPT2DoubleHeadsModel`: `logits` `(B, C, T, vocab_size)` and `mc_logits` `(B, C)`.

    `loss` is the loss of the language model, `mc_loss` that of the choice, both in nats.
    """

    loss: Tensor | None = None
    mc_loss: Tensor | None = None
    logits: Tensor | None = None
    mc_logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def _at(states: Tensor, index: Tensor | None) -> Tensor:
    """Return the states at an index `(...)`; without an index, the last ones."""
    if index is None:
        return states[..., -1, :]
    return states.gather(-2, index[..., None, None].expand(*index.shape, 1, states.shape[-1])).squeeze(-2)


# Functions from states `(..., T, n_embd)` and an index `(...)` to one state of a text, `(..., n_embd)`.
SUMMARIES: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "last": lambda states, index: states[..., -1, :],
    "first": lambda states, index: states[..., 0, :],
    "mean": lambda states, index: states.mean(dim=-2),
    "cls_index": _at,
}


class GPT2SequenceSummary(nn.Module):
    """Reduces the states of a text to one vector, by the `summary_` fields of the config."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.summary_type not in SUMMARIES:
            known = ", ".join(SUMMARIES)
            raise ValueError(f"summary_type {config.summary_type!r} is not supported; these are: {known}")
        self.summarize = SUMMARIES[config.summary_type]
        self.first_dropout = nn.Dropout(config.summary_first_dropout)
        self.last_dropout = nn.Dropout(getattr(config, "summary_last_dropout", 0.0))  # a field of few configs
        size = config.num_labels if config.summary_proj_to_labels else config.n_embd
        self.summary = Linear(config.n_embd, size) if config.summary_use_proj else nn.Identity()
        self.activation = find_activation("summary_activation", config.summary_activation or "linear")

    def forward(self, states: Tensor, index: Tensor | None = None) -> Tensor:
        """Map states `(..., T, n_embd)` and an index `(...)` to `(..., num_labels or n_embd)`."""
        summary: Tensor = self.summary(self.first_dropout(self.summarize(states, index)))
        dropped: Tensor = self.last_dropout(self.activation(summary))
        return dropped


class GPT2DoubleHeadsModel(GPT2LMHeadModel):
    """GPT-2 that predicts the next token, and chooses among texts."""

    accepts_loss_kwargs = False
    argument_order = (*GPT2Model.argument_order, "mc_token_ids", "labels", "mc_labels")

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        config.num_labels = 1
        super().__init__(config, attn_implementation)
        self.multiple_choice_head = GPT2SequenceSummary(config)
        self.multiple_choice_head.apply(self.init_weights)

    def forward(  # type: ignore[override]  # the order is that of `argument_order`
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        return_dict: bool | None = True,
        logits_to_keep: int | Tensor = 0,
        **inputs: Any,
    ) -> Any:
        """Score tokens and choices; return a `GPT2DoubleHeadsModelOutput`.

        Args:
            input_ids: tokens `(B, C, T)`.
            attention_mask: `(B, C, S)`, zero at padding.
            mc_token_ids: `(B, C)`, the position whose state represents the text; by default the last.
            labels: tokens `(B, C, T)`, -100 at positions to ignore; with labels, `loss` is computed.
            mc_labels: `(B,)`, the right choice; with it, `mc_loss` is computed.
            return_dict: if False, return a tuple.
            logits_to_keep: number of last positions to score (0: all), or an index of positions.
            inputs: more arguments of `GPT2Model.forward`, which describes the errors.
        """
        decoded = self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        states: Tensor = decoded.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(states[..., kept, :])
        mc_logits = self.multiple_choice_head(states, mc_token_ids).squeeze(-1)
        loss = mc_loss = None
        if labels is not None:
            loss = next_token_loss(logits, labels)
        if mc_labels is not None:
            choices = mc_logits.view(-1, mc_logits.shape[-1])
            mc_loss = F.cross_entropy(choices.float(), mc_labels.flatten().to(choices.device))
        output = GPT2DoubleHeadsModelOutput(
            loss=loss,
            mc_loss=mc_loss,
            logits=logits,
            mc_logits=mc_logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output.to_tuple() if return_dict is False else output
