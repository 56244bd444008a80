"""What transformers' own loops and tools ask of a language model, beside `generate`."""

from typing import Any, ClassVar

from torch import Tensor, nn

from torchgguf.models.blocks.chunked_loss import chunked_next_token_loss
from torchgguf.models.blocks.losses import next_token_loss
from torchgguf.models.core.model import Model


class LanguageModeling(Model):
    """Inputs of one step of a loop, and the loss, for programs that call a model themselves.

    Attributes:
        output_class: class of what `forward` returns.
    """

    output_class: ClassVar[type[Any]]

    @property
    def head(self) -> nn.Module:
        """The layer that scores tokens."""
        raise NotImplementedError

    def score(self, states: Tensor) -> Tensor:
        """Map last states `(..., hidden_size)` to logits `(..., vocab_size)`."""
        logits: Tensor = self.head(states)
        return logits

    def complete(self, output: Any, decoded: Any, attention_mask: Tensor | None) -> None:
        """Add fields that only some models return, from the output of the model without a head."""

    def loss(
        self,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Any,
    ) -> Tensor:
        """Compute the loss that `forward` returns, without the logits of all positions in memory.

        It needs less memory and, where labels are ignored, less time. Its gradients have no gradients.

        Args:
            input_ids: tokens `(B, T)`.
            labels: tokens `(B, T)`, -100 at positions to ignore; `input_ids` by default.
            attention_mask: `(B, T)`, zero at padding.
            num_items_in_batch: divisor of the loss (see `next_token_loss`).
            inputs: more arguments of the model without a head.

        Returns:
            A scalar, in nats a token.

        Raises:
            ValueError: there are neither labels nor `input_ids`, or shapes differ.
        """
        labels = input_ids if labels is None else labels
        if labels is None:
            raise ValueError("loss() needs labels, or input_ids that are labels, too")
        decoded = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, **{"use_cache": False, **inputs}
        )
        trained = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        states, vocab_size = decoded.last_hidden_state, self.config.vocab_size
        loss = chunked_next_token_loss(self.score, states, labels, trained, vocab_size, num_items_in_batch)
        output = self.output_class(loss=loss)
        self.complete(output, decoded, attention_mask)
        completed: Tensor = output.loss
        return completed

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        cache: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        **inputs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of `forward` for the next step of a loop.

        `generate` here does not call it; loops of other programs do.

        Args:
            input_ids: all tokens so far `(B, T)`.
            next_sequence_length: how many of them are new; by default those that the cache does not contain.
            cache: states of earlier positions; `past_key_values` is its older name.
            attention_mask: `(B, T)`, zero at padding; positions follow from it.
            inputs_embeds: replaces `input_ids` in the first step.
            is_first_iteration: whether this is the first step.
            inputs: more arguments of `forward`.
        """
        cache = inputs.pop("past_key_values", cache)
        new = next_sequence_length
        if new is None and cache is not None:
            new = input_ids.shape[1] - cache.get_seq_length()
        embedded = inputs_embeds is not None and is_first_iteration
        tokens = inputs_embeds if embedded else input_ids
        assert tokens is not None
        if new is not None:
            tokens = tokens[:, -new:]
        prepared = {**inputs, "inputs_embeds" if embedded else "input_ids": tokens, "cache": cache}
        if attention_mask is not None:
            prepared["attention_mask"] = attention_mask
            if inputs.get("position_ids") is None:
                positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
                prepared["position_ids"] = positions[:, -tokens.shape[1] :]
        return prepared

    @property
    def loss_function(self) -> Any:
        """A function that computes the loss from `logits`, `labels` and, optionally, `num_items_in_batch`."""
        return _loss


def _loss(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int | None = None,
    num_items_in_batch: Tensor | int | None = None,
    **options: Any,
) -> Tensor:
    """Compute the loss of a language model; `vocab_size` is that of the logits."""
    if options:
        raise TypeError(f"loss_function() has no option {min(options)!r}")
    return next_token_loss(logits, labels.to(logits.device), num_items_in_batch)
