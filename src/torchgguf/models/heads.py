"""Heads: what is laid on a model's last states to judge texts, tokens or spans.

An architecture's class says which model lies below; the names of the parameters are transformers'. What
that takes (`position_ids`, `cache`, `inputs_embeds`, `output_hidden_states`, …) a model with a head
takes too, by name. Shapes: B batch, T new positions.
"""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.models.base import PreTrainedModel
from torchgguf.models.losses import sequence_loss, span_loss, token_loss
from torchgguf.models.outputs import (
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from torchgguf.nn import Linear


class ModelWithHead(PreTrainedModel):
    """A model and a linear layer over its last states.

    Attributes:
        base_class: the model without a head, which lies under the name `base_model_prefix`.
        head_name: the name of the layer.
        head_bias: whether that has a bias.
        accepts_loss_kwargs: what transformers' Trainer asks before it gives `num_items_in_batch`; without, it
            averages the losses of a batch that comes in parts.
    """

    base_class: ClassVar[type[PreTrainedModel]]
    head_name: ClassVar[str]
    head_bias: ClassVar[bool] = True
    accepts_loss_kwargs: ClassVar[bool] = False

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        setattr(self, self.base_model_prefix, self.base_class(config, attn_implementation))
        setattr(self, self.head_name, Linear(config.hidden_size, self.head_size(config), self.head_bias))
        self.post_init()

    def head_size(self, config: Any) -> int:
        """Return how many numbers the head makes of a state."""
        size: int = config.num_labels
        return size

    @property
    def head(self) -> nn.Module:
        """The layer over the last states."""
        head: nn.Module = getattr(self, self.head_name)
        return head


class ForSequenceClassification(ModelWithHead):
    """Judges a text by the state of its last token."""

    head_name = "score"
    head_bias = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Score texts `(B, T)`: a `SequenceClassifierOutputWithPast`.

        The last token is the last one that is not the config's `pad_token_id`, on whichever side of the text
        padding is; `inputs_embeds` are taken to have none behind them. `labels` ask for the loss by the
        config's `problem_type` (see `sequence_loss`): `(B,)`, or `(B, num_labels)` where a text has a number
        for each label.

        Raises:
            ValueError: there are several texts, and the config has no `pad_token_id`.
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        states: Tensor = decoded.last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        logits = self.head(states[rows, self._last_tokens(input_ids, states)])
        output = SequenceClassifierOutputWithPast(
            loss=None if labels is None else sequence_loss(logits, labels, self.config),
            logits=logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output if return_dict else output.to_tuple()

    def _last_tokens(self, input_ids: Tensor | None, states: Tensor) -> Tensor | int:
        """Say where in each row the last token is."""
        padding = self.config.pad_token_id
        if padding is None:
            if len(states) > 1:
                raise ValueError(
                    "texts cannot be told from padding: set config.pad_token_id, or give one text"
                )
            return -1
        if input_ids is None:
            warnings.warn("inputs_embeds are taken to end in a token, not in padding", stacklevel=1)
            return -1
        positions = torch.arange(input_ids.shape[1], device=states.device)
        last: Tensor = (positions * (input_ids.to(states.device) != padding)).argmax(dim=1)
        return last


class ForTokenClassification(ModelWithHead):
    """Judges each token by its state."""

    head_name = "score"

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        stated = (getattr(config, name, None) for name in ("classifier_dropout", "hidden_dropout"))
        self.dropout = nn.Dropout(next((p for p in stated if p is not None), 0.1))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Score each token of texts `(B, T)`: a `TokenClassifierOutput`.

        `labels` `(B, T)`, -100 where none counts, ask for the loss.
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        logits = self.head(self.dropout(decoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output if return_dict else output.to_tuple()


class ForQuestionAnswering(ModelWithHead):
    """Finds where in a text the answer starts and ends."""

    head_name = "qa_outputs"

    def head_size(self, config: Any) -> int:
        """Return 2: a start and an end."""
        return 2

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        return_dict: bool = True,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Score each position of texts `(B, T)` as a start and as an end: a `QuestionAnsweringModelOutput`.

        `start_positions` and `end_positions`, `(B,)` each, ask for the loss (see `span_loss`).
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        start_logits, end_logits = self.head(decoded.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output if return_dict else output.to_tuple()
