"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and the ways to stretch it.

`rope_parameters` are those of Hugging Face configs: `rope_type` chooses the row of `SCALINGS`, `rope_theta`
is the base of the wavelengths, `partial_rotary_factor` how much of a head is rotated (all of it if it is not
there; a row may read it in its own way, see `rotated_size`), the rest belongs to the row.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchgguf.nn.cache.lengths import ALL_LENGTHS, Lengths
from torchgguf.nn.tracing import is_traced

RopeParameters = Mapping[str, Any]
# (inverse frequencies (D/2,) float32, factor on cosine and sine)
Frequencies = tuple[Tensor, float]

PROPORTIONAL = "proportional"


def rotated_size(parameters: RopeParameters, head_dim: int) -> int:
    """Return how many of a head's numbers, the first ones, are rotated.

    Proportional embedding pairs the numbers of whole heads, and leaves those of the lowest frequencies.

    Raises:
        ValueError: they are odd in number, or not between 1 and all of them.
    """
    if parameters.get("rope_type") == PROPORTIONAL:
        return head_dim
    size = int(head_dim * (factor := parameters.get("partial_rotary_factor", 1.0)))
    if size % 2 or not 0 < size <= head_dim:
        raise ValueError(
            f"partial_rotary_factor={factor} would rotate {size} of a head's {head_dim} numbers: "
            "it must be an even number of them"
        )
    return size


def plain_frequencies(parameters: RopeParameters, dim: int) -> Tensor:
    """Return `theta ** (-2i/dim)`, `(dim/2,)` float32 in radians a position."""
    # Always on the CPU: a model's skeleton is built under the meta device, its frequencies are not.
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    return torch.reciprocal(parameters["rope_theta"] ** exponents)


def _default(parameters: RopeParameters, dim: int) -> Frequencies:
    return plain_frequencies(parameters, dim), 1.0


def proportional_rotations(parameters: RopeParameters, dim: int) -> int:
    """Return how many of the `dim / 2` frequencies of proportional rotary embedding are not zero."""
    return int(parameters.get("partial_rotary_factor", 1.0) * dim // 2)


def _proportional(parameters: RopeParameters, dim: int) -> Frequencies:
    """Keep the highest of a whole head's frequencies, and make the others zero."""
    frequencies = plain_frequencies(parameters, dim) / parameters.get("factor", 1.0)
    frequencies[proportional_rotations(parameters, dim) :] = 0
    return frequencies, 1.0


def _linear(parameters: RopeParameters, dim: int) -> Frequencies:
    """Position interpolation: every wavelength times `factor`."""
    return plain_frequencies(parameters, dim) / parameters["factor"], 1.0


def _llama3(parameters: RopeParameters, dim: int) -> Frequencies:
    return plain_frequencies(parameters, dim) / llama3_factors(parameters, dim), 1.0


def llama3_factors(parameters: RopeParameters, dim: int) -> Tensor:
    """Return what Llama 3.1 divides each frequency by, `(dim/2,)` float32.

    Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched by `factor`, those
    below `… / high_freq_factor` are left, and between them the inverse of the divisor moves linearly.
    """
    factor, low, high = (parameters[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = parameters["original_max_position_embeddings"]
    turns = original * plain_frequencies(parameters, dim) / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return torch.reciprocal((1 - kept) / factor + kept)


def yarn_attention_factor(parameters: RopeParameters) -> float:
    """Return YaRN's factor on cosine and sine: `attention_factor`, or `0.1 ln(factor) + 1` of the paper."""
    if (stated := parameters.get("attention_factor")) is not None:
        return float(stated)
    factor = parameters["factor"]

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    over, under = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return scale(over) / scale(under) if over and under else scale(1.0)


def _yarn(parameters: RopeParameters, dim: int) -> Frequencies:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): stretch slow dimensions, leave fast ones, ramp between."""
    theta, factor = parameters["rope_theta"], parameters["factor"]
    original = parameters["original_max_position_embeddings"]

    def dimension(rotations: float) -> float:
        return float(dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta)))

    low, high = dimension(parameters.get("beta_fast") or 32.0), dimension(parameters.get("beta_slow") or 1.0)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 0.001)
    kept = (1 - ramp.clamp(0, 1)) * parameters.get("extrapolation_factor", 1.0)
    plain = plain_frequencies(parameters, dim)
    return plain / factor * (1 - kept) + plain * kept, yarn_attention_factor(parameters)


def longrope_attention_factor(parameters: RopeParameters) -> float:
    """Return LongRoPE's factor on both: `attention_factor`, or `sqrt(1 + ln(factor) / ln(original))`."""
    if (stated := parameters.get("attention_factor")) is not None:
        return float(stated)
    factor = parameters["factor"]
    original = parameters["original_max_position_embeddings"]
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def _longrope(parameters: RopeParameters, dim: int, key: str = "short_factor") -> Frequencies:
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753): a divisor for each frequency, one set for long texts."""
    factors = torch.tensor(parameters[key], dtype=torch.float32, device="cpu")
    if factors.shape != (dim // 2,):
        raise ValueError(f"rope_parameters[{key!r}] has {factors.numel()} factors, needs {dim // 2}")
    return plain_frequencies(parameters, dim) / factors, longrope_attention_factor(parameters)


SCALINGS: dict[str, Callable[[RopeParameters, int], Frequencies]] = {
    "default": _default,
    "linear": _linear,
    PROPORTIONAL: _proportional,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


class Rotation(NamedTuple):
    """What `rotate` needs, `(B, T, 1, R)` each, and the lengths of texts that it is valid in (None: all)."""

    cos: Tensor
    sin: Tensor
    lengths: Lengths | None


class RotaryEmbedding(nn.Module):
    """Cosines and sines of every position, computed once a forward and shared by all layers.

    Args:
        rope_parameters: as in Hugging Face configs.
        head_dim: size D of a head; R of it are rotated (see `rotated_size`).

    Raises:
        ValueError: the `rope_type` is unknown, or one of the parameters is missing or ill-shaped.
    """

    def __init__(self, rope_parameters: RopeParameters, head_dim: int) -> None:
        super().__init__()
        self.rope_type = rope_parameters["rope_type"]
        if self.rope_type not in SCALINGS:
            raise ValueError(
                f"rope_type {self.rope_type!r} is not supported; these are: {', '.join(SCALINGS)}"
            )
        size = rotated_size(rope_parameters, head_dim)
        try:
            # Plain attributes, not buffers: `model.to(bfloat16)` must not round them.
            self.inv_freq, self.attention_scaling = SCALINGS[self.rope_type](rope_parameters, size)
            self.long_inv_freq: Tensor | None = None
            if self.rope_type == "longrope":
                self.long_inv_freq, _ = _longrope(rope_parameters, size, "long_factor")
                self.original_length = rope_parameters["original_max_position_embeddings"]
        except KeyError as error:
            raise ValueError(f"rope_parameters of type {self.rope_type!r} lack {error}") from None

    def forward(self, position_ids: Tensor, dtype: torch.dtype) -> Rotation:
        """Return the rotation of positions.

        Args:
            position_ids: `(B, T)`.
            dtype: of the cosines and sines.
        """
        frequencies, lengths = self.inv_freq.to(position_ids.device), None
        self.inv_freq = frequencies
        if self.long_inv_freq is not None:
            self.long_inv_freq = self.long_inv_freq.to(position_ids.device)
            long = position_ids.max() >= self.original_length
            frequencies = torch.where(long, self.long_inv_freq, frequencies)
            lengths = self._lengths(long)
        angles = position_ids[..., None, None].float() * frequencies
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return Rotation(
            torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype), lengths
        )

    def _lengths(self, long: Tensor) -> Lengths:
        """Return the lengths of texts that have the frequencies of long texts, or those that have not."""
        # A graph cannot branch on values, and to read them from a GPU would stall it.
        if is_traced() or type(long) is not Tensor or long.device.type != "cpu":
            lowest = long * (self.original_length + 1)
            return lowest, torch.where(long, ALL_LENGTHS[1], self.original_length)
        return (self.original_length + 1, None) if long else (None, self.original_length)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs `(x[i], x[i + R/2])` of heads `(B, T, H, D)` by the angles of `RotaryEmbedding`.

    The first half of `sin` carries the minus sign, so that rolling by half of R does for both halves.
    """
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat((rotate(x[..., :size], cos, sin), x[..., size:]), dim=-1)
    return torch.addcmul(x * cos, x.roll(size // 2, -1), sin)


def rotate_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs `(x[2i], x[2i + 1])` of heads `(B, T, H, D)` by the angles of `RotaryEmbedding`.

    The result has the order of `rotate`: all first numbers of pairs, then all second ones. Scores of queries
    and keys do not change if both have the same other order.
    """
    size = cos.shape[-1]
    if size < x.shape[-1]:
        return torch.cat((rotate_neighbours(x[..., :size], cos, sin), x[..., size:]), dim=-1)
    return rotate(x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2), cos, sin)
