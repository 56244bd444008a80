"""Heads: layers on a model's last states that score texts, tokens or spans.

A subclass in an architecture's file names the model without a head; parameters have transformers' names. A
model with a head accepts all arguments of that model by name (`position_ids`, `cache`, `inputs_embeds`,
`output_hidden_states`, …). Shapes: B batch, T new positions.
"""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchgguf.generation import GenerationMixin
from torchgguf.models.blocks.language_modeling import LanguageModeling
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
        base_class: class of the model without a head, which the attribute `base_model_prefix` holds.
        head_name: attribute that holds the layer.
        head_bias: whether the layer has a bias.
        accepts_loss_kwargs: read by transformers' Trainer, for batches in parts: if True, it passes
            `num_items_in_batch`; if False, it averages the losses of the parts.
    """

    base_class: ClassVar[type[PreTrainedModel]]
    head_name: ClassVar[str]
    head_bias: ClassVar[bool] = True
    accepts_loss_kwargs: ClassVar[bool] = False

    def __init_subclass__(cls, base: type[PreTrainedModel] | None = None, **options: Any) -> None:
        """Put the head of this class on another model.

        Args:
            base: class of the model without a head.
            options: arguments of other base classes.
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
        head = Linear(config.hidden_size, self.head_size(config), self.head_has_bias(config))
        setattr(self, self.head_name, head)
        self.post_init()

    def head_size(self, config: Any) -> int:
        """Return the output size of the head."""
        size: int = config.num_labels
        return size

    def head_has_bias(self, config: Any) -> bool:
        """Return whether the head has a bias."""
        return self.head_bias

    @property
    def scorer(self) -> nn.Module:
        """The layer on the last states."""
        scorer: nn.Module = getattr(self, self.head_name)
        return scorer

    def prepare(self, states: Tensor) -> Tensor:
        """Map last states to what the layer reads; by default they are that."""
        return states


class ForCausalLM(ModelWithHead, LanguageModeling, GenerationMixin):
    """Predicts the next token.

    Attributes:
        output_class: class of what `forward` returns.
    """

    task = "causal_lm"
    output_class: ClassVar[type[Any]] = CausalLMOutputWithPast
    head_name = "lm_head"
    head_bias = False
    accepts_loss_kwargs = True
    loss_type = "ForCausalLM"  # transformers' Trainer: the first label of a text is not predicted
    lm_head: nn.Module

    @property
    def head(self) -> nn.Module:
        """The layer that scores tokens."""
        return self.scorer

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
        return_dict: bool | None = True,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """Score the next token at every position; return an `output_class`.

        `LayerStack.forward` describes the errors, and more arguments.

        Args:
            input_ids: tokens `(B, T)`.
            attention_mask: `(B, S)`, zero at padding.
            position_ids: `(B or 1, T)`.
            cache: states of earlier positions.
            inputs_embeds: `(B, T, hidden_size)`, in place of `input_ids`.
            labels: tokens `(B, T)`, -100 at positions to ignore; with labels, the loss is computed.
            use_cache: whether to create a cache if `cache` is None.
            return_dict: if False, return a tuple.
            logits_to_keep: number of last positions to score (0: all), or an index of positions.
            num_items_in_batch: divisor of the loss (see `next_token_loss`).
            inputs: more arguments of the model without a head.
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
        logits = self.score(decoded.last_hidden_state[..., kept, :])
        output = self.output_class(
            loss=None if labels is None else next_token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        self.complete(output, decoded, attention_mask)
        return output.to_tuple() if return_dict is False else output


class CappedForCausalLM(ForCausalLM):
    """Predicts the next token; `final_logit_softcapping` of the config, unless None, bounds the logits."""

    def score(self, states: Tensor) -> Tensor:
        """Map last states to logits, each `cap * tanh(logit / cap)`."""
        logits: Tensor = self.head(states)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else torch.tanh(logits / cap) * cap


class ForSequenceClassification(ModelWithHead):
    """Scores a text by the state of its last token."""

    task = "sequence_classification"
    head_name = "score"
    head_bias = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        return_dict: bool | None = True,
        **inputs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Score texts; return a `SequenceClassifierOutputWithPast`.

        Args:
            input_ids: tokens `(B, T)`. The last one that is not the config's `pad_token_id` is scored;
                with `inputs_embeds`, the last position.
            attention_mask: `(B, S)`, zero at padding.
            labels: `(B,)`, or `(B, num_labels)` for a number for each label; with labels, the loss is
                computed by the config's `problem_type` (see `sequence_loss`).
            return_dict: if False, return a tuple.
            inputs: more arguments of the model without a head.

        Raises:
            ValueError: there are several texts, but `pad_token_id` of the config is None.
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        states: Tensor = decoded.last_hidden_state
        rows = torch.arange(len(states), device=states.device)
        logits = self.scorer(states[rows, self._last_tokens(input_ids, states)])
        output = SequenceClassifierOutputWithPast(
            loss=None if labels is None else sequence_loss(logits, labels, self.config),
            logits=logits,
            cache=decoded.cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output.to_tuple() if return_dict is False else output

    def _last_tokens(self, input_ids: Tensor | None, states: Tensor) -> Tensor | int:
        """Return the position of the last token in each row."""
        padding = self.config.pad_token_id
        if padding is None:
            if len(states) > 1:
                raise ValueError(
                    "several texts require a token for padding: set config.pad_token_id, or pass one text"
                )
            return -1
        if input_ids is None:
            warnings.warn("inputs_embeds: the last position is scored, even if it is padding", stacklevel=1)
            return -1
        positions = torch.arange(input_ids.shape[1], device=states.device)
        last: Tensor = (positions * (input_ids.to(states.device) != padding)).argmax(dim=1)
        return last


class HeadWithDropout(ModelWithHead):
    """A head behind a dropout layer."""

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__(config, attn_implementation)
        stated = (
            getattr(config, name, None)
            for name in ("classifier_dropout", "hidden_dropout", "hidden_dropout_prob")
        )
        self.dropout = nn.Dropout(next((p for p in stated if p is not None), 0.1))

    def prepare(self, states: Tensor) -> Tensor:
        """Return what is left of the states in training."""
        left: Tensor = self.dropout(states)
        return left


class ForPooledClassification(HeadWithDropout):
    """Scores a text by what the pooler of an encoder returns."""

    task = "sequence_classification"

    def pool(self, encoded: Any, attention_mask: Tensor | None) -> Tensor:
        """Return the states of texts `(B, hidden_size)`, given the output of the model without a head."""
        pooled: Tensor = encoded.pooler_output
        return pooled

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        return_dict: bool | None = True,
        **inputs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Score texts; return a `SequenceClassifierOutputWithPast`.

        Args:
            input_ids: tokens `(B, T)`.
            attention_mask: `(B, T)`, zero at padding.
            labels: as in `ForSequenceClassification.forward`.
            return_dict: if False, return a tuple.
            inputs: more arguments of the model without a head.
        """
        encoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        logits = self.scorer(self.prepare(self.pool(encoded, attention_mask)))
        output = SequenceClassifierOutputWithPast(
            loss=None if labels is None else sequence_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output.to_tuple() if return_dict is False else output


class ForTokenClassification(HeadWithDropout):
    """Scores each token by its state."""

    task = "token_classification"
    head_name = "score"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        return_dict: bool | None = True,
        **inputs: Any,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Score each token; return a `TokenClassifierOutput`.

        Args:
            input_ids: tokens `(B, T)`.
            attention_mask: `(B, S)`, zero at padding.
            labels: `(B, T)`, -100 at positions to ignore; with labels, the loss is computed.
            return_dict: if False, return a tuple.
            inputs: more arguments of the model without a head.
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        logits = self.scorer(self.prepare(decoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
        )
        return output.to_tuple() if return_dict is False else output


class ForQuestionAnswering(ModelWithHead):
    """Finds the start and the end of an answer in a text."""

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
        return_dict: bool | None = True,
        **inputs: Any,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Score each position as a start and as an end; return a `QuestionAnsweringModelOutput`.

        Args:
            input_ids: tokens `(B, T)`.
            attention_mask: `(B, S)`, zero at padding.
            start_positions: `(B,)`; with it and `end_positions`, the loss is computed (see `span_loss`).
            end_positions: `(B,)`.
            return_dict: if False, return a tuple.
            inputs: more arguments of the model without a head.
        """
        decoded = self.base_model(input_ids, attention_mask=attention_mask, **inputs)
        start_logits, end_logits = self.scorer(self.prepare(decoded.last_hidden_state)).unbind(dim=-1)
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
        return output.to_tuple() if return_dict is False else output
