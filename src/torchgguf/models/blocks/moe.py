"""Mixtures of experts: for each token, a router chooses a few of many MLPs.

Shape letters: N tokens, E experts, K experts of a token.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeCausalLMOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.nn import Experts, Gate, find_activation, load_balancing_loss

# Maps the router's scores (N, E) to the weights and the indices of the chosen experts, (N, K) each.
Router = Callable[[Tensor], tuple[Tensor, Tensor]]


def softmax_then_choose(logits: Tensor, choices: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Compute probabilities of all experts and choose the highest: a `Router`, by `functools.partial`.

    Args:
        logits: scores of the experts, `(N, E)`.
        choices: number of experts of a token, K.
        normalize: whether to divide the chosen probabilities by their sum.

    Returns:
        The weights and the indices of the experts of each token, `(N, K)` each.
    """
    weights, chosen = F.softmax(logits, dim=-1, dtype=torch.float32).topk(choices)
    return weights / weights.sum(dim=-1, keepdim=True) if normalize else weights, chosen


def choose_then_softmax(logits: Tensor, choices: int) -> tuple[Tensor, Tensor]:
    """Choose the highest scores and compute probabilities of these: a `Router`, by `functools.partial`.

    Args:
        logits: scores of the experts, `(N, E)`.
        choices: number of experts of a token, K.

    Returns:
        The weights and the indices of the experts of each token, `(N, K)` each.
    """
    scores, chosen = logits.topk(choices)
    return F.softmax(scores, dim=-1, dtype=torch.float32), chosen


def check_choices(choices: int, experts: int) -> None:
    """Refuse a number of experts a token that is not between 1 and the number of experts.

    Raises:
        ValueError: it is not.
    """
    if not 0 < choices <= experts:
        raise ValueError(f"num_experts_per_tok must be from 1 to {experts}, got {choices}")


def gated_experts(config: Any, experts: int, intermediate_size: int) -> Experts:
    """Create experts with the activation that the config names."""
    activation = find_activation("hidden_act", config.hidden_act)
    return Experts(experts, config.hidden_size, intermediate_size, activation)


class SparseMoeBlock(nn.Module):
    """Experts, the router that chooses among them and, optionally, an expert that all tokens share.

    Args:
        experts: map tokens `(N, hidden_size)`, given the indices and weights of their experts.
        router: chooses experts by their scores.
        shared: expert for all tokens; a gate of its own scales its output.
        jitter: in training, tokens are multiplied by random numbers between `1 - jitter` and `1 + jitter`.

    Attributes:
        gate_name: the attribute that holds the layer that scores experts.
    """

    layer_name: ClassVar[str] = "mlp"
    gate_name: ClassVar[str] = "gate"

    def __init__(
        self, experts: Experts, router: Router, shared: MLP | None = None, jitter: float = 0.0
    ) -> None:
        super().__init__()
        count, hidden_size, _ = experts.sizes
        self.route = router
        self.jitter = jitter
        self.add_module(self.gate_name, self.make_gate(hidden_size, count))
        self.experts: nn.Module = experts
        self.has_shared_expert = shared is not None
        if shared is not None:
            self.shared_expert = shared
            self.shared_expert_gate = Gate(hidden_size, 1)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts by their scores, as a `Router` does."""
        return self.route(logits)

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts."""
        return Gate(hidden_size, experts)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to itself, and record the router's scores on request."""
        if self.jitter and self.training:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        tokens = x.flatten(0, 1)
        logits: Tensor = getattr(self, self.gate_name)(tokens)
        step.record.add("router_logits", logits)
        weights, chosen = self.choose(logits)
        mixed: Tensor = self.experts(tokens, chosen, weights.to(x.dtype)).view_as(x)
        if self.has_shared_expert:
            share = torch.sigmoid(self.shared_expert_gate(x)).to(x.dtype)
            mixed = mixed + share * self.shared_expert(x)
        return mixed


class MoeForCausalLM(heads.ForCausalLM):
    """A mixture of experts that predicts the next token.

    With `output_router_logits` (argument of `forward`, or field of the config), outputs contain the routers'
    scores and `aux_loss`, which measures how unevenly they spread tokens; `loss` contains
    `router_aux_loss_coef` times `aux_loss`.
    """

    output_class = MoeCausalLMOutputWithPast

    num_experts = property(attrgetter("config.num_experts"))
    num_experts_per_tok = property(attrgetter("config.num_experts_per_tok"))
    router_aux_loss_coef = property(attrgetter("config.router_aux_loss_coef"))

    def complete(self, output: Any, decoded: Any, attention_mask: Tensor | None) -> None:
        """Add the routers' scores and the load-balancing loss."""
        output.router_logits = decoded.router_logits
        if not decoded.router_logits:
            return
        choices = self.config.num_experts_per_tok
        output.aux_loss = load_balancing_loss(decoded.router_logits, choices, attention_mask)
        if output.loss is not None:
            output.loss = output.loss + self.config.router_aux_loss_coef * output.aux_loss
