"""The recurrences position by position, as their papers write them: what the operators are compared with."""

import torch
from torch import Tensor


def gated_delta_rule(query, key, value, decay, beta, state) -> tuple[Tensor, Tensor]:
    repeats = value.shape[2] // key.shape[2]
    q, k = (x.repeat_interleave(repeats, dim=2) for x in (query, key))
    factor = decay.exp()[..., None]
    factor = factor if decay.dim() == 4 else factor[..., None]
    outputs = []
    for t in range(value.shape[1]):
        state = state * factor[:, t]
        stored = (k[:, t, :, :, None] * state).sum(2)
        state = state + k[:, t, :, :, None] * (beta[:, t, :, None] * (value[:, t] - stored))[:, :, None]
        outputs.append((q[:, t, :, :, None] * state).sum(2))
    return torch.stack(outputs, dim=1) if outputs else value, state


def selective_scan(x, step_size, a, b, c, state) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(x.shape[1]):
        added = (step_size[:, t] * x[:, t])[..., None] * b[:, t, None]
        state = (step_size[:, t, :, None] * a).exp() * state + added
        outputs.append((state * c[:, t, None]).sum(-1))
    return torch.stack(outputs, dim=1) if outputs else x, state


def state_space_scan(x, step_size, a, b, c, state) -> tuple[Tensor, Tensor]:
    repeats = x.shape[2] // b.shape[2]
    b, c = (each.repeat_interleave(repeats, dim=2) for each in (b, c))
    outputs = []
    for t in range(x.shape[1]):
        added = (step_size[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
        state = (step_size[:, t] * a).exp()[..., None, None] * state + added
        outputs.append((state * c[:, t, :, None]).sum(-1))
    return torch.stack(outputs, dim=1) if outputs else x, state


def causal_convolution(x, weight, bias=None) -> Tensor:
    size, new = weight.shape[1], x.shape[2] - weight.shape[1] + 1
    outputs = [(x[..., t : t + size] * weight).sum(-1) for t in range(new)]
    output = torch.stack(outputs, dim=-1) if outputs else x[..., :0]
    return output if bias is None else output + bias[:, None]
