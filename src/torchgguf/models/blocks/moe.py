"""Mixtures of experts: for each token, a router chooses a few of many MLPs.

Shape letters: N tokens, E experts, K experts of a token.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgguf.models.blocks import heads
from torchgguf.models.blocks.mlp import MLP
from torchgguf.models.blocks.outputs import MoeCausalLMOutputWithPast
from torchgguf.models.blocks.step import Step
from torchgguf.nn import (
    CorrectedGate,
    Experts,
    Gate,
    Linear,
    UngatedExperts,
    find_activation,
    load_balancing_loss,
)

# Maps the router's scores (N, E) to the weights and the indices of the chosen experts, (N, K) each. A bias
# (E,) with which experts are chosen is a second argument.
Router = Callable[..., tuple[Tensor, Tensor]]


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


def softmax_then_choose_biased(
    logits: Tensor, bias: Tensor, choices: int, least: float
) -> tuple[Tensor, Tensor]:
    """Compute probabilities and choose the highest with a bias: a `Router`, by `functools.partial`.

    Args:
        logits: scores of the experts, `(N, E)`.
        bias: is added to the probabilities, `(E,)`, when experts are chosen, not when they are weighed.
        choices: number of experts of a token, K.
        least: the lowest number by which the chosen probabilities are divided, instead of their sum.

    Returns:
        The weights and the indices of the experts of each token, `(N, K)` each.
    """
    probabilities = F.softmax(logits, dim=-1, dtype=torch.float32)
    chosen = (probabilities + bias).topk(choices).indices
    weights = probabilities.gather(-1, chosen)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=least), chosen


def softmax_then_choose_in_groups(
    logits: Tensor, choices: int, normalize: bool, scale: float, groups: int, chosen_groups: int
) -> tuple[Tensor, Tensor]:
    """Compute probabilities and choose the highest in the best groups: a `Router`, by `functools.partial`.

    DeepSeek-V2 (2024, arXiv 2405.04434, section 2.2.2). The best expert of a group ranks it.

    Args:
        logits: scores of the experts, `(N, E)`.
        choices: number of experts of a token, K.
        normalize: whether to divide the chosen probabilities by their sum.
        scale: factor on the weights.
        groups: number of groups of equal size that experts form in their order.
        chosen_groups: number of groups from which a token's experts come.

    Returns:
        The weights and the indices of the experts of each token, `(N, K)` each.
    """
    probabilities = F.softmax(logits, dim=-1, dtype=torch.float32)
    if groups > 1:
        probabilities = _in_best_groups(probabilities, groups, chosen_groups, ranking=1, outside=0.0)
    weights, chosen = probabilities.topk(choices)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights * scale, chosen


def sigmoid_then_choose(
    logits: Tensor,
    bias: Tensor | None = None,
    *,
    choices: int,
    normalize: bool = True,
    scale: float = 1.0,
    groups: int = 1,
    chosen_groups: int = 1,
    added: float = 1e-20,
) -> tuple[Tensor, Tensor]:
    """Compute the sigmoids of all scores and choose the highest with a bias: a `Router`, by `partial`.

    DeepSeek-V3 (2024, arXiv 2412.19437, section 2.1.2). The best two experts of a group rank it.

    Args:
        logits: scores of the experts, `(N, E)`.
        bias: is added to the sigmoids, `(E,)`, when experts are chosen, not when they are weighed.
        choices: number of experts of a token, K.
        normalize: whether to divide the chosen sigmoids by their sum.
        scale: factor on the weights.
        groups: number of groups of equal size that experts form in their order.
        chosen_groups: number of groups from which a token's experts come.
        added: is added to the sum by which sigmoids are divided.

    Returns:
        The weights and the indices of the experts of each token, `(N, K)` each.
    """
    scores = torch.sigmoid(logits.float())
    wanted = scores if bias is None else scores + bias
    if groups > 1:
        wanted = _in_best_groups(wanted, groups, chosen_groups, ranking=2, outside=-torch.inf)
    chosen = wanted.topk(choices).indices
    weights = scores.gather(-1, chosen)
    if normalize:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + added)
    return weights * scale, chosen


def _in_best_groups(scores: Tensor, groups: int, chosen: int, ranking: int, outside: float) -> Tensor:
    """Return scores `(N, E)` in the best groups (by the sum of their best), `outside` in all others."""
    grouped = scores.unflatten(-1, (groups, -1))
    best = grouped.topk(ranking, dim=-1).values.sum(dim=-1).topk(chosen).indices
    others = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, False)
    masked: Tensor = grouped.masked_fill(others.unsqueeze(-1), outside).flatten(-2)
    return masked


def check_groups(groups: int, chosen: int, experts: int, choices: int) -> None:
    """Refuse groups of experts that are not of equal size, or contain too few experts.

    Args:
        groups: number of groups.
        chosen: number of groups from which a token's experts come.
        experts: number of experts.
        choices: number of experts of a token.

    Raises:
        ValueError: they are not, or do.
    """
    if not 0 < chosen <= groups or experts % groups or (groups > 1 and experts // groups < 2):
        raise ValueError(
            f"n_group must divide n_routed_experts={experts} into groups of two or more, and topk_group must "
            f"be from 1 to n_group, got n_group={groups} and topk_group={chosen}"
        )
    if choices > (experts // groups) * chosen:
        raise ValueError(
            f"num_experts_per_tok={choices}, but {chosen} groups contain {experts // groups * chosen} experts"
        )


def check_choices(choices: int, experts: int, name: str = "num_experts_per_tok") -> None:
    """Refuse a number of experts a token that is not between 1 and the number of experts.

    Args:
        choices: number of experts of a token.
        experts: number of experts.
        name: of the field that states the first.

    Raises:
        ValueError: it is not.
    """
    if not 0 < choices <= experts:
        raise ValueError(f"{name} must be from 1 to {experts}, got {choices}")


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
        shared_experts: one MLP for all tokens, whose output is added as it is; None: there is none.
        hidden_size: of the stream; by default what experts read.

    Attributes:
        gate_name: the attribute that holds the layer that scores experts.
    """

    layer_name: ClassVar[str] = "mlp"
    gate_name: ClassVar[str] = "gate"

    def __init__(
        self,
        experts: Experts,
        router: Router,
        shared: MLP | None = None,
        jitter: float = 0.0,
        shared_experts: nn.Module | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        count, input_size, _ = experts.sizes
        self.route = router
        self.jitter = jitter
        self.add_module(self.gate_name, self.make_gate(hidden_size or input_size, count))
        self.experts: nn.Module = experts
        self.has_shared_expert = shared is not None
        if shared is not None:
            self.shared_expert = shared
            self.shared_expert_gate = Gate(hidden_size or input_size, 1)
        self.shared_experts = shared_experts

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Choose experts by their scores, as a `Router` does."""
        return self.route(logits)

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts."""
        return Gate(hidden_size, experts)

    def mix_experts(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, hidden_size)` by the experts `chosen`, weighed by `weights`, `(N, K)` each."""
        mixed: Tensor = self.experts(tokens, chosen, weights)
        return mixed

    def forward(self, x: Tensor, step: Step) -> Tensor:
        """Map the stream `(B, T, hidden_size)` to itself, and record the router's scores on request."""
        if self.jitter and self.training:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        tokens = x.flatten(0, 1)
        logits: Tensor = getattr(self, self.gate_name)(tokens)
        step.record.add("router_logits", logits)
        weights, chosen = self.choose(logits)
        mixed = self.mix_experts(tokens, chosen, weights.to(x.dtype)).view_as(x)
        if self.has_shared_expert:
            share = torch.sigmoid(self.shared_expert_gate(x)).to(x.dtype)
            mixed = mixed + share * self.shared_expert(x)
        if self.shared_experts is not None:
            mixed = mixed + self.shared_experts(x)
        return mixed


class CorrectedMoeBlock(SparseMoeBlock):
    """Experts that are chosen by scores with a bias, which belongs to the gate."""

    def make_gate(self, hidden_size: int, experts: int) -> nn.Module:
        """Create the layer that scores experts, and stores the bias."""
        return CorrectedGate(hidden_size, experts)

    def correction(self) -> Tensor:
        """Return the bias, `(E,)`."""
        gate = getattr(self.gate, "base_layer", self.gate)  # PEFT's adapters contain the layer
        assert isinstance(gate, CorrectedGate)
        return gate.e_score_correction_bias

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and the indices of the experts of each token, `(N, K)` each."""
        return self.route(logits, self.correction())


def sigmoid_router(config: Any) -> Router:
    """Return a `Router`: `sigmoid_then_choose` with the fields of a config."""
    return partial(
        sigmoid_then_choose,
        choices=config.num_experts_per_tok,
        normalize=config.norm_topk_prob,
        scale=config.routed_scaling_factor,
        groups=config.n_group,
        chosen_groups=config.topk_group,
    )


class LatentMoeBlock(CorrectedMoeBlock):
    """Experts without a gate, chosen by sigmoids with a bias, that read and write vectors of another size.

    Args:
        config: contains `moe_latent_size`, the size of these vectors; None: experts read the stream.
        shared_experts: one MLP for all tokens, which reads the stream.
    """

    def __init__(self, config: Any, shared_experts: nn.Module) -> None:
        hidden_size, latent_size = config.hidden_size, config.moe_latent_size
        activation = find_activation("hidden_act", config.hidden_act)
        experts = UngatedExperts(
            config.n_routed_experts, latent_size or hidden_size, config.moe_intermediate_size, activation
        )
        router = sigmoid_router(config)
        super().__init__(experts, router, shared_experts=shared_experts, hidden_size=hidden_size)
        self.has_latents = latent_size is not None
        if latent_size is not None:
            self.fc1_latent_proj = Linear(hidden_size, latent_size, bias=config.mlp_bias)
            self.fc2_latent_proj = Linear(latent_size, hidden_size, bias=config.mlp_bias)

    def mix_experts(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Map tokens `(N, hidden_size)` by the experts `chosen`, weighed by `weights`, `(N, K)` each."""
        if not self.has_latents:
            return super().mix_experts(tokens, chosen, weights)
        mixed: Tensor = self.fc2_latent_proj(self.experts(self.fc1_latent_proj(tokens), chosen, weights))
        return mixed


def sigmoid_experts(config: Any) -> CorrectedMoeBlock:
    """Create experts of DeepSeek-V3's kind, and those that all tokens share."""
    experts = gated_experts(config, config.n_routed_experts, config.moe_intermediate_size)
    return CorrectedMoeBlock(experts, sigmoid_router(config), shared_experts=shared_experts(config))


def shared_experts(config: Any, bias: bool = False) -> MLP:
    """Create the MLP for all tokens, which is as large as `n_shared_experts` experts."""
    return MLP(config, bias=bias, intermediate_size=config.moe_intermediate_size * config.n_shared_experts)


class RoutedForCausalLM(heads.ForCausalLM):
    """A mixture of experts that predicts the next token, and is balanced by biases instead of a loss.

    With `output_router_logits` (argument of `forward`, or field of the config), outputs contain the routers'
    scores.
    """

    output_class = MoeCausalLMOutputWithPast

    def complete(self, output: Any, decoded: Any, attention_mask: Tensor | None) -> None:
        """Add the routers' scores."""
        output.router_logits = decoded.router_logits


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
