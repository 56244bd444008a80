"""What transformers' own loops and tools ask of a language model, beside `generate`."""

from typing import Any

from torch import Tensor, nn

from torchgguf.models.blocks.losses import next_token_loss


class LanguageModeling(nn.Module):
    """Inputs of one step of a loop, and the loss, for programs that call a model themselves."""

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
