"""Heads: what is laid on a model's last states to judge texts, tokens or spans.

An architecture's class says which model lies below; the names of the parameters are transformers'. What
that takes (`position_ids`, `cache`, `inputs_embeds`, `output_hidden_states`, …) a model with a head
takes too, by name. Shapes: B batch, T new positions.
"""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.generation import GenerationMixin
from torchgguf.models.blocks.losses import next_token_loss, sequence_loss, span_loss, token_loss
from torchgguf.models.blocks.outputs import (
    CausalLMOutputWithPast,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.nn import Cache, Linear


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

    def __init_subclass__(cls, base: type[PreTrainedModel] | None = None, **options: Any) -> None:
        """Put the head of this class on another model.

        Args:
            base: the model without a head.
            options: of other bases.
        """
        if base is not None:
            cls.base_class, cls.architecture = base, base.architecture
            for name in ("base_model_prefix", "argument_order"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(base, name))
        super().__init_subclass__(**options)

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


class ForCausalLM(ModelWithHead, GenerationMixin):
    """Predicts the next token.

    Attributes:
        output_class: what `forward` returns.
    """

    task = "causal_lm"
    output_class: ClassVar[type[Any]] = CausalLMOutputWithPast
    head_name = "lm_head"
    head_bias = False
    accepts_loss_kwargs = True
    loss_type = "ForCausalLM"  # transformers' Trainer: the first label of a text is not predicted
    lm_head: nn.Module

    def head_size(self, config: Any) -> int:
        """Return the size of the vocabulary."""
        size: int = config.vocab_size
        return size

    def get_output_embeddings(self) -> nn.Module:
        """Return the module that scores tokens."""
        return self.lm_head

    def set_output_embeddings(self, module: nn.Module) -> None:
        """Replace the module that scores tokens."""
        self.lm_head = module

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        return_dict: bool = True,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """Score the next token at every position: an `output_class`.

        Arguments and errors are those of `LayerStack.forward`, and three more.

        Args:
            input_ids: tokens `(B, T)`.
            attention_mask: `(B, S)`, zero at padding.
            position_ids: `(B or 1, T)`.
            cache: of the positions before these.
            inputs_embeds: `(B, T, hidden_size)`, in place of `input_ids`.
            labels: tokens `(B, T)` with -100 where none is to be predicted; they ask for the loss.
            use_cache: whether to make a cache if none is given.
            return_dict: return an `output_class`, or its `to_tuple()` if False.
            logits_to_keep: score only so many last positions (0: all), or those of an index.
            num_items_in_batch: what the loss is divided by (see `next_token_loss`).
            inputs: of the model without the head.
        """
        decoded = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **inputs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(decoded.last_hidden_state[..., kept, :])
        output = self.output_class(
            loss=None if labels is None else next_token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        self.complete(output, decoded, attention_mask)
        return output if return_dict else output.to_tuple()

    def complete(self, output: Any, decoded: Any, attention_mask: Tensor | None) -> None:
        """Add to an output what only some kinds of models have, given that of the model without a head."""


class ForSequenceClassification(ModelWithHead):
    """Judges a text by the state of its last token."""

    task = "sequence_classification"
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

    task = "token_classification"
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

    task = "question_answering"
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
