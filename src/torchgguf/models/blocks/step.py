"""`Step`: what all layers share in one forward pass, and the protocol of layers.

A layer is a module with `forward(x, step) -> x`, whether it contains attention, experts or a recurrence. It
reads its mask, its rotation and its state in the cache from the step, and records there the tensors that
callers requested. Nothing in a step depends on the values of activations, so that a step of decoding is a
fixed sequence of operators on tensors of fixed shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from torchgguf.nn import AttentionFunction, AttentionMask, Cache, Padding, Rotation


@dataclass(slots=True)
class StepRecord:
    """Tensors that layers record, in the order of layers; None: not requested.

    Attributes:
        attentions: probabilities of each attention, `(B, H, T, S)`.
        router_logits: scores of each router, `(B * T, experts)`.
        cross_attentions: probabilities of each attention to an encoder's states, `(B, H, T, E)`.
    """

    attentions: list[Tensor] | None = None
    cross_attentions: list[Tensor] | None = None
    router_logits: list[Tensor] | None = None

    def requested(self) -> list[str]:
        """Return the names of the requested lists."""
        return [each.name for each in fields(self) if getattr(self, each.name) is not None]

    def empty(self) -> "StepRecord":
        """Return an empty record with the same requests."""
        return StepRecord(**{name: [] for name in self.requested()})

    def of_one_layer(self) -> list[Tensor | None]:
        """Return what one layer recorded, for each requested list: a tensor, or None."""
        return [next(iter(getattr(self, name)), None) for name in self.requested()]

    def add(self, name: str, tensor: Tensor | None) -> None:
        """Append a tensor to the list of this name, if it is requested."""
        kept: list[Tensor] | None = getattr(self, name)
        if kept is not None and tensor is not None:
            kept.append(tensor)


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of a text.

    Attributes:
        states: its last states, `(B, E, hidden_size)`.
        mask: which of its positions a query sees.
    """

    states: Tensor
    mask: AttentionMask

    def to(self, device: torch.device | str | int) -> "Encoded":
        """Return the same on a device."""
        return Encoded(self.states.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Step:
    """What all layers share in one forward pass.

    Attributes:
        masks: which positions a query sees, by the layers' window (None: no window).
        attend: computes attention.
        rotations: angles of rotary embedding, by kind.
        cache: the states of all layers, or None.
        record: tensors that layers record on request.
        padding: which new positions recurrent layers leave out; None: there is no padding, or there are no
            such layers.
        layer_inputs: what layers read besides the stream, `(B, T, layers, size)`, or None.
        shared: keys and values `(B, K, S, D)` that later layers read too, by the layer that computed them.
        encoded: what the layers of a decoder read of an encoder, or None.
        buckets: of relative positions, `(T, S)` int64, for layers with biases of their own, or None.
    """

    masks: Mapping[int | None, AttentionMask]
    attend: AttentionFunction
    rotations: Mapping[str, Rotation] = field(default_factory=dict)
    cache: Cache | None = None
    record: StepRecord = field(default_factory=StepRecord)
    padding: Padding | None = None
    layer_inputs: Tensor | None = None
    shared: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    encoded: Encoded | None = None
    buckets: Tensor | None = None

    def carried(self) -> list[Tensor]:
        """Return the tensors that go from layer to layer beside the stream, and that have gradients."""
        inputs = [] if self.layer_inputs is None else [self.layer_inputs]
        states = [] if self.encoded is None else [self.encoded.states]
        biases = [mask.bias for mask in self.masks.values() if mask.bias is not None]
        return [*inputs, *states, *biases, *(tensor for pair in self.shared.values() for tensor in pair)]

    def carrying(self, tensors: Sequence[Tensor], **changes: Any) -> "Step":
        """Return a step with these tensors in the places of those that `carried` returns.

        Args:
            tensors: as `carried` returns them. What layers add to the step's `shared` is not added here.
            changes: other fields that differ.
        """
        left = iter(tensors)
        if self.layer_inputs is not None:
            changes["layer_inputs"] = next(left)
        if self.encoded is not None:
            changes["encoded"] = replace(self.encoded, states=next(left))
        masks = {w: m if m.bias is None else replace(m, bias=next(left)) for w, m in self.masks.items()}
        shared = {layer: (next(left), next(left)) for layer in self.shared}
        return replace(self, masks=masks, shared=shared, **changes)

    def to(self, device: torch.device | str | int, **options: Any) -> "Step":
        """Return the step with its tensors on the device of the next layer.

        Accelerate calls this if a model's layers are on several devices. Both steps share the record.
        """
        masks = {window: mask.to(device) for window, mask in self.masks.items()}
        rotations = {
            kind: Rotation(cos.to(device), sin.to(device), lengths)
            for kind, (cos, sin, lengths) in self.rotations.items()
        }
        padding = None if self.padding is None else self.padding.to(device)
        inputs = None if self.layer_inputs is None else self.layer_inputs.to(device)
        encoded = None if self.encoded is None else self.encoded.to(device)
        return replace(
            self, masks=masks, rotations=rotations, padding=padding, layer_inputs=inputs, encoded=encoded
        )
