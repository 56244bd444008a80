"""What a model's forward returns: dataclasses that can also be indexed and unpacked like tuples."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from torchgguf.nn import DynamicCache


@dataclass
class ModelOutput:
    """Base of all outputs. Fields that are None count for nothing when indexed by position or unpacked."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are there, in the order of the fields."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Get a value by name, or by its place among those that are there."""
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if (value := getattr(self, key, None)) is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values that are there, as a tuple does."""
        return iter(self.to_tuple())

    def __len__(self) -> int:
        """Count the values that are there."""
        return len(self.to_tuple())


@dataclass
class BaseModelOutputWithPast(ModelOutput):
    """Output of a decoder without a head. Shapes: B batch, T new positions, S positions seen, H heads.

    `hidden_states`: the embeddings and the output of every layer, the last one normalised, each
    `(B, T, hidden_size)`. `attentions`: every layer's probabilities `(B, H, T, S)`.
    """

    last_hidden_state: Tensor
    past_key_values: DynamicCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CausalLMOutputWithPast(ModelOutput):
    """Output of a language model: `logits` `(B, T or logits_to_keep, vocab_size)`, `loss` in nats a token."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: DynamicCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
