"""Mixtures of experts: in place of an MLP, a few of many, which a router chooses for each token.

Shape letters: N tokens, E experts, K experts of a token.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeCausalLMOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.nn import Experts, Gate, load_balancing_loss

# Turns the router's scores (N, E) into the weights and the numbers of the chosen experts, (N, K) each.
Router = Callable[[Tensor], tuple[Tensor, Tensor]]


def softmax_then_choose(choices: int, *, normalize: bool) -> Router:
    """Return the router that makes probabilities of all experts, and chooses those with the highest.

    Args:
        choices: number K of experts of a token.
        normalize: divide the chosen probabilities by their sum.
    """

    def route(logits: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = F.softmax(logits, dim=-1, dtype=torch.float32).topk(choices)
        return weights / weights.sum(dim=-1, keepdim=True) if normalize else weights, chosen

    return route


class SparseMoeBlock(nn.Module):
    """Experts, the router that chooses among them and, if there is one, an expert that all tokens share.

    Args:
        experts: map tokens `(N, hidden_size)`, given the numbers and the weights of their experts.
        router: chooses.
        shared: the expert for all tokens, whose output is weighed by a gate of its own.
    """

    layer_name: ClassVar[str] = "mlp"

    def __init__(self, experts: Experts, router: Router, shared: MLP | None = None) -> None:
        super().__init__()
        count, hidden_size, _ = experts.down_proj.shape
        self.route = router
        self.gate = Gate(hidden_size, count)
        self.experts: nn.Module = experts
        self.has_shared_expert = shared is not None
        if shared is not None:
            self.shared_expert = shared
            self.shared_expert_gate = Gate(hidden_size, 1)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to itself, and record the router's scores if asked for."""
        tokens = x.flatten(0, 1)
        logits = self.gate(tokens)
        step.record.add("router_logits", logits)
        weights, chosen = self.route(logits)
        mixed: Tensor = self.experts(tokens, chosen, weights.to(x.dtype)).view_as(x)
        if self.has_shared_expert:
            share = torch.sigmoid(self.shared_expert_gate(x)).to(x.dtype)
            mixed = mixed + share * self.shared_expert(x)
        return mixed


class MoeForCausalLM(heads.ForCausalLM):
    """A mixture of experts that predicts the next token.

    With `output_router_logits` (an argument of `forward`, or the config's field) outputs have the routers'
    scores and `aux_loss`, how unevenly they spread tokens; `router_aux_loss_coef` of it is added to the loss.
    """

    output_class = MoeCausalLMOutputWithPast

    def complete(self, output: Any, decoded: Any, attention_mask: Tensor | None) -> None:
        """Add the routers' scores, and the loss of how unevenly they spread tokens."""
        if decoded.router_logits is None:
            return
        output.router_logits = decoded.router_logits
        choices = self.config.num_experts_per_tok
        output.aux_loss = load_balancing_loss(decoded.router_logits, choices, attention_mask)
        if output.loss is not None:
            output.loss = output.loss + self.config.router_aux_loss_coef * output.aux_loss
