"""AltUp (Baykal et al. 2023, arXiv 2301.13310) and Laurel (Menghani et al. 2024, arXiv 2411.07501).

A model of AltUp has several streams. A layer reads and changes one of them, the active one: the others are
predicted before, and corrected after. Laurel is a residual of low rank beside attention.

Shape letters: A streams, B batch, T new positions, H size of the stream.
"""

from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.core.weight_map import ParameterRow, Row, StackedModules
from torchgguf.nn import Linear, WideRMSNorm

# llama.cpp's converter writes the matrices of three streams beside the first.
ALTUP_STACKS = tuple(
    StackedModules(name, tuple(f"{name}.{i}" for i in range(3)))
    for name in ("altup_proj", "altup_unembd_proj")
)
ALTUP_ROWS = (
    Row("altup_proj.{}", "altup_projections.{}"),
    Row("altup_unembd_proj.{}", "altup_unembed_projections.{}"),
    ParameterRow("blk.{}.altup_correct_scale.weight", "layers.{}.altup.correct_output_scale"),
    Row("blk.{}.altup_correct_coef", "layers.{}.altup.correction_coefs"),
    Row("blk.{}.altup_predict_coef", "layers.{}.altup.prediction_coefs"),
    Row("blk.{}.altup_router", "layers.{}.altup.modality_router"),
    Row("blk.{}.altup_router_norm", "layers.{}.altup.router_norm"),
    Row("blk.{}.laurel_l", "layers.{}.laurel.linear_left"),
    Row("blk.{}.laurel_r", "layers.{}.laurel.linear_right"),
    Row("blk.{}.laurel_post_norm", "layers.{}.laurel.post_laurel_norm"),
)


class AltUp(nn.Module):
    """Predicts all streams from the active one, and corrects them by what a layer made of that.

    Args:
        config: contains `hidden_size`, `rms_norm_eps`, `altup_num_inputs` (the number of streams),
            `altup_active_idx` and `altup_coef_clip`, which bounds coefficients in training.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        streams, size = config.altup_num_inputs, config.hidden_size
        self.active, self.limit = config.altup_active_idx, config.altup_coef_clip
        self.correct_output_scale = nn.Parameter(torch.zeros(size))
        self.correction_coefs = Linear(streams, streams, bias=False)
        self.prediction_coefs = Linear(streams, streams**2, bias=False)
        self.modality_router = Linear(size, streams, bias=False)
        self.router_norm = WideRMSNorm(size, eps=config.rms_norm_eps)

    def route(self, x: Tensor) -> Tensor:
        """Map an active stream `(B, T, H)` to `(B, T, A)`."""
        routed: Tensor = self.modality_router(self.router_norm(x) * x.shape[-1] ** -1.0)
        return torch.tanh(routed.float()).type_as(x)

    def predict(self, x: Tensor) -> Tensor:
        """Return what the streams `(A, B, T, H)` should be before the layer, of the same shape."""
        self._bound(self.prediction_coefs)
        coefficients = self.prediction_coefs(self.route(x[self.active])).unflatten(-1, (len(x), -1))
        return torch.einsum("abth,btca->cbth", x, coefficients) + x

    def correct(self, predicted: Tensor, activated: Tensor) -> Tensor:
        """Return the streams after the layer, given what it made of the active one, `(B, T, H)`."""
        self._bound(self.correction_coefs)
        coefficients = self.correction_coefs(self.route(activated)) + 1.0
        innovation = activated - predicted[self.active]
        corrected: Tensor = innovation * coefficients.movedim(-1, 0).unsqueeze(-1) + predicted
        return corrected

    def _bound(self, layer: nn.Module) -> None:
        """Bound the coefficients of a layer that is trained."""
        if self.training and isinstance(layer, nn.Linear) and self.limit is not None:
            with torch.no_grad():
                layer.weight.clamp_(-self.limit, self.limit)

    def scale(self, x: Tensor) -> Tensor:
        """Return the corrected active stream, scaled."""
        return x * self.correct_output_scale.to(x.dtype)


class Laurel(nn.Module):
    """A residual of low rank: `x + norm(right(left(x)))`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.linear_left = Linear(config.hidden_size, config.laurel_rank, bias=False)
        self.linear_right = Linear(config.laurel_rank, config.hidden_size, bias=False)
        self.post_laurel_norm = WideRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, T, H)` to itself."""
        added: Tensor = self.post_laurel_norm(self.linear_right(self.linear_left(x)))
        return x + added


class AltUpProjections(nn.ModuleList):
    """Matrices that map streams to others, or back, and keep their magnitude."""

    def __init__(self, config: Any) -> None:
        size = config.hidden_size
        super().__init__(Linear(size, size, bias=False) for _ in range(1, config.altup_num_inputs))

    def project(self, number: int, x: Tensor, like: Tensor) -> Tensor:
        """Map a stream `(B, T, H)` by one of the matrices, to the magnitude of another stream."""
        projected: Tensor = self[number](x)
        magnitude = projected.square().mean(dim=-1, keepdim=True).clamp(min=1e-5).sqrt()
        return projected * like.square().mean(dim=-1, keepdim=True).sqrt() / magnitude
