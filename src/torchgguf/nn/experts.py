"""Mixtures of experts: many small gated MLPs, a few of which each token goes through.

Shape letters: N tokens, K experts that a token goes through, E experts, H size of the stream, I size of an
expert.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.nn.factors import scaled_linear, unpacked
from torchgguf.nn.layers import AnyQuantType, Linear
from torchgguf.nn.packed_matrices import PackedMatrices
from torchgguf.nn.slots import Slot, SlottedLayer
from torchgguf.nn.tracing import is_traced
from torchgguf.quants import QuantType, quant_type as find_quant_type

# As files call an expert's matrices, all experts' in one tensor: ffn_gate_exps, ffn_up_exps, ffn_down_exps.
_GATE, _UP, _DOWN = MATRICES = ("gate_proj", "up_proj", "down_proj")
# No more tokens are in a step of decoding. What takes time there is to read experts, most of which are read
# anyway: to send all tokens through all of them costs little. For a prompt it would be most of the work.
_STEP = 64

# Told of an expert: its number, the rows `(n, H)` that its gate and its up are multiplied by, and those
# `(n, I)` that its down is.
Observer = Callable[[int, Tensor, Tensor], None]

# Given the name of a parameter of plain experts, the number of an expert and rows: what is added to their
# products, as plain experts compute them; or None.
ProductChange = Callable[[str, int | None, Tensor], Tensor | None]


class Gate(Linear):
    """A linear layer that chooses or weighs experts: so few weights that decide so much are never packed.

    It calculates in the dtype of its weights, and so do its outputs come.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self._is_vector = False  # as older files have the weights of a single output

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return F.linear(input.to(self.weight.dtype), self.weight)

    def slots(self) -> Iterable[Slot]:
        """List the weights."""
        also = (self.in_features,) if self.out_features == 1 else None
        return [Slot("weight", tuple(self._rows().shape), self._rows, also=also)]

    def _rows(self) -> Tensor:
        rows = self.weight.detach()
        return rows[0] if self._is_vector else rows

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store the weights."""
        self._is_vector = tensor.dim() == 1
        super().fill(name, tensor.view(self.out_features, self.in_features))


class ObservedExperts(SlottedLayer):
    """Experts that call an `observer`, while there is one, with what they do; compiled models do not.

    Attributes:
        matrices: their matrices in files, the last one of which reads what the others return.
        parameters_of_plain: names of the matrices of plain experts, of which an adapter may change products.
        change: returns such a change; None if there are none.
    """

    matrices: ClassVar[tuple[str, ...]] = MATRICES
    parameters_of_plain: ClassVar[tuple[str, str]] = ("gate_up_proj", "down_proj")
    observer: Observer | None = None
    change: ProductChange | None = None

    def _changed(self, name: str, expert: int | None, rows: Tensor, products: Tensor) -> Tensor:
        """Return the products of a matrix of plain experts, with what an adapter adds."""
        added = None if self.change is None else self.change(name, expert, rows)
        return products if added is None else products + added

    def _changed_pair(
        self, expert: int | None, rows: Tensor, gate: Tensor, up: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return gate and up with what an adapter adds to `gate_up_proj`, the gate above the other."""
        added = None if self.change is None else self.change("gate_up_proj", expert, rows)
        if added is None:
            return gate, up
        of_gate, of_up = self._halves(added)
        return gate + of_gate, up + of_up

    def _halves(self, gate_up: Tensor) -> tuple[Tensor, Tensor]:
        """Split products of `gate_up_proj` `(..., 2I)`."""
        gate, up = gate_up.chunk(2, dim=-1)
        return gate, up

    def _observe(self, expert: int | None, rows: Tensor, products: Tensor) -> None:
        if self.observer is not None and expert is not None:
            self.observer(expert, rows, products)


class Experts(ObservedExperts):
    """Experts `down(act(gate(x)) * up(x))`, with the parameters that transformers has.

    `gate_up_proj` is `(E, 2I, H)`, in each expert the gate above the other; `down_proj` is `(E, H, I)`. Both
    are set by the model. GGUF files hold gates, ups and downs apart.
    """

    def __init__(
        self, experts: int, hidden_size: int, intermediate_size: int, activation: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        self.sizes = experts, hidden_size, intermediate_size
        self.act_fn = activation
        self.add_parameters(*self.sizes)

    def add_parameters(self, experts: int, hidden_size: int, intermediate_size: int) -> None:
        """Allocate the parameters."""
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden_size, intermediate_size))

    def make_packed(self) -> "QuantizedExperts":
        """Create the packed form, without tensors."""
        return QuantizedExperts(self.act_fn)

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        return mix(self._expert, (self.gate_up_proj, self.down_proj), input, chosen, weights)

    def _expert(self, expert: int | None, x: Tensor, gate_up_proj: Tensor, down_proj: Tensor) -> Tensor:
        gate_up = self._changed("gate_up_proj", expert, x, F.linear(x, gate_up_proj))
        gate, up = self._halves(gate_up)
        products = self.act_fn(gate) * up
        self._observe(expert, x, products)
        return self._changed(_DOWN, expert, products, F.linear(products, down_proj))

    def _matrix(self, name: str) -> Tensor:
        if name == _DOWN:
            return self.down_proj.detach()
        return self.gate_up_proj.detach().chunk(2, dim=1)[name == _UP]

    def slots(self) -> Iterable[Slot]:
        """List the matrices of all experts, as they are in files."""
        for name in MATRICES:
            shape, read = tuple(self._matrix(name).shape), partial(self._matrix, name)
            yield Slot(f"{name}.weight", shape, read, packable=True, factors=shape[:1])

    def fill(self, name: str, tensor: Tensor) -> None:
        """Store one of the matrices of all experts."""
        name = name.removesuffix(".weight")
        if name == _DOWN:
            self.down_proj = nn.Parameter(tensor)
        else:
            if self.gate_up_proj.is_meta:
                empty = torch.empty(self.gate_up_proj.shape, dtype=tensor.dtype, device=tensor.device)
                self.gate_up_proj = nn.Parameter(empty)
            self._matrix(name).copy_(tensor)

    def pack(
        self, name: str, blocks: Tensor, quant_type: QuantType, dtype: torch.dtype
    ) -> "QuantizedExperts":
        """Return the packed layer, as in `SlottedLayer.pack`."""
        packed = self.make_packed().pack(name, blocks, quant_type, dtype)
        for slot in self.slots():
            if slot.name != name and not (matrix := slot.read()).is_meta:
                packed.fill(slot.name, matrix)
        return packed

    def extra_repr(self) -> str:
        """Show the sizes, as in `60 experts, 2048 -> 1408 -> 2048`."""
        return _sizes(self.sizes)


class QuantizedExperts(ObservedExperts, PackedMatrices):
    """Experts whose matrices stay in their GGUF blocks, and of which only those chosen are read.

    `gate_proj`, `up_proj` and `down_proj` are uint8 `(E, rows, bytes_per_row)`, each of its own type. They
    have no gradient; the input has.

    Args:
        activation: what the gates go through.
        matrices: blocks and type of each matrix; those that are left out must come by `pack` or `fill`.
    """

    gate_proj: nn.Parameter
    up_proj: nn.Parameter
    down_proj: nn.Parameter

    def __init__(
        self,
        activation: Callable[..., Tensor],
        matrices: Mapping[str, tuple[Tensor, AnyQuantType]] | None = None,
    ) -> None:
        super().__init__()
        self.act_fn = activation
        for name, (blocks, quant_type) in (matrices or {}).items():
            self._set(name, blocks, find_quant_type(quant_type))

    def forward(self, input: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, H)` by the experts `chosen` `(N, K)`, weighed by `weights` `(N, K)`."""
        matrices = (self.gate_proj, self.up_proj, self.down_proj)
        return mix(self._expert, (*matrices, *self.scales().values()), input, chosen, weights)

    def scales(self) -> dict[str, Tensor]:
        """Return the factors `(E,)` of experts on their products, by the name of the matrix."""
        factors = {name: self.factor(f"{name}.weight") for name in self.matrices}
        return {name: factor for name, factor in factors.items() if factor is not None}

    def _expert(
        self,
        expert: int | None,
        x: Tensor,
        gate_proj: Tensor,
        up_proj: Tensor,
        down_proj: Tensor,
        *scales: Tensor,
    ) -> Tensor:
        scale = dict(zip(self.scales(), scales, strict=True)) if scales else {}
        kinds = self.quant_types
        gate = scaled_linear(x, gate_proj, kinds[_GATE], scale=scale.get(_GATE))
        up = scaled_linear(x, up_proj, kinds[_UP], scale=scale.get(_UP))
        gate, up = self._changed_pair(expert, x, gate, up)
        products = self.act_fn(gate) * up
        self._observe(expert, x, products)
        down = scaled_linear(products, down_proj, kinds[_DOWN], scale=scale.get(_DOWN))
        return self._changed(_DOWN, expert, products, down)

    def intermediate_size(self) -> int:
        """Return the size of an expert, I."""
        return self.gate_proj.shape[1]

    def make_plain(self, experts: int, hidden_size: int, intermediate_size: int) -> Experts:
        """Create the plain form."""
        return Experts(experts, hidden_size, intermediate_size, self.act_fn)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Experts:
        """Return the plain layer with the same weights in `dtype`, trainable."""
        experts, hidden, _ = self.down_proj.shape
        with torch.device("meta"):
            plain = self.make_plain(experts, hidden, self.intermediate_size())
        for name, kind in self.quant_types.items():
            plain.fill(name, unpacked(getattr(self, name), kind, dtype, self.factor(f"{name}.weight")))
        return plain

    def extra_repr(self) -> str:
        """Show the sizes and the types, as in `60 experts, 2048 -> 1408 -> 2048, gate_proj=Q4_K, ...`."""
        types = ", ".join(f"{name}={kind.name}" for name, kind in self.quant_types.items())
        return f"{_sizes((*self.down_proj.shape[:2], self.intermediate_size()))}, {types}"


def mix(
    expert: Callable[..., Tensor],
    matrices: Sequence[Tensor],
    input: Tensor,
    chosen: Tensor,
    weights: Tensor,
) -> Tensor:
    """Send tokens through their experts and add up what comes back.

    Args:
        expert: maps rows `(n, H)` by one expert; given its number, None in a graph of fixed shapes, which
            also sends rows to experts that they did not choose; the rows; and its matrices.
        matrices: of all experts, `(E, ...)` each.
        input: tokens `(N, H)`.
        chosen: numbers of each token's experts `(N, K)`.
        weights: by which what they make of it is multiplied `(N, K)`.

    Returns:
        `(N, H)`.
    """
    # A compiled graph cannot ask how many tokens an expert has: shapes must not depend on it.
    fixed = is_traced() and len(input) <= _STEP
    by_token = (_by_fixed_shapes if fixed else _by_expert)(expert, matrices, input, chosen)
    return (by_token * weights.unsqueeze(-1)).sum(dim=1)


def _by_expert(
    expert: Callable[..., Tensor], matrices: Sequence[Tensor], input: Tensor, chosen: Tensor
) -> Tensor:
    """Return the output of each token's experts, `(N, K, H)`; an expert runs once, with all its tokens."""
    tokens, choices = chosen.shape
    order = chosen.flatten().argsort(stable=True)  # pairs of a token and a choice, sorted by expert
    counts = chosen.flatten().bincount(minlength=len(matrices[0])).tolist()
    hit = [i for i, count in enumerate(counts) if count]
    groups = input[order // choices].split([counts[i] for i in hit])
    # One unbinding has one gradient for all experts; indexing would make one of full size for each.
    of_each = [x.unbind() if x.requires_grad else x for x in matrices]
    outputs = [expert(i, rows, *(x[i] for x in of_each)) for i, rows in zip(hit, groups, strict=True)]
    return torch.cat(outputs)[order.argsort()].view(tokens, choices, -1)


def _by_fixed_shapes(
    expert: Callable[..., Tensor], matrices: Sequence[Tensor], input: Tensor, chosen: Tensor
) -> Tensor:
    """Return the same, each choice of each token by itself or, for many, all tokens by all experts."""
    tokens, choices = chosen.shape
    if chosen.numel() < len(matrices[0]):
        taken = zip(*(x.index_select(0, chosen.flatten()).unbind() for x in matrices), strict=True)
        rows = input.repeat_interleave(choices, dim=0).split(1)
        outputs = [expert(None, row, *own) for row, own in zip(rows, taken, strict=True)]
        return torch.cat(outputs).view(tokens, choices, -1)
    everything = torch.stack([expert(None, input, *own) for own in zip(*matrices, strict=True)], dim=1)
    return everything.take_along_dim(chosen[..., None], dim=1)


def load_balancing_loss(
    router_logits: Iterable[Tensor], choices: int, attention_mask: Tensor | None = None
) -> Tensor:
    """Return how unevenly tokens are spread over experts: 1 times `choices` if evenly, a scalar.

    It is the experts' share of the choices times their mean probability, summed, times their number:
    equations 4 to 6 of Switch Transformers (Fedus et al. 2021, arXiv 2101.03961), over all layers together.

    Args:
        router_logits: of each layer, `(B * T, E)`.
        choices: how many experts a token goes through.
        attention_mask: `(B, T)`, zero where a token does not count.
    """
    probabilities = torch.stack(
        [F.softmax(logits.float(), dim=-1) for logits in router_logits]
    )  # (L, B*T, E)
    chosen = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(choices).indices, 1.0)
    counted = probabilities.new_ones(probabilities.shape[1])
    if attention_mask is not None:
        counted = attention_mask.flatten().to(counted)
    total = counted.sum() * len(probabilities)
    share = torch.einsum("lne,n->e", chosen, counted) / total
    mean = torch.einsum("lne,n->e", probabilities, counted) / total
    return probabilities.shape[-1] * share @ mean


def _sizes(down_proj: tuple[int, ...]) -> str:
    experts, hidden, intermediate = down_proj
    return f"{experts} experts, {hidden} -> {intermediate} -> {hidden}"
