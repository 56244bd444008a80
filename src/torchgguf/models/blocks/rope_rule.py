"""The rule for rotary embeddings: `rope.*` keys and frequency tensors against the config's `rope_parameters`.

GGUF stores the kind of scaling in `rope.scaling.type`, and divisors of single frequencies (of Llama 3.1 or
LongRoPE) in tensors. Their meaning is that of llama.cpp's converter (conversion/base.py) and of its runtime
(llama-model.cpp, llama-context.cpp), which match transformers, except that the runtime ignores the `yarn_*`
keys for most architectures; this rule applies them.
"""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.container.errors import brief
from torchgguf.models.core.config import LARGEST_HEAD
from torchgguf.models.core.config_map import Header, Rule
from torchgguf.models.core.neutral_keys import is_neutral
from torchgguf.nn.rotary import (
    llama3_factors,
    longrope_attention_factor,
    rotated_size,
    yarn_attention_factor,
)

FACTORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"

ROTATED = "rope.dimension_count"
_LENGTH = ("rope.scaling.factor", "rope.scale_linear")
ORIGINAL, _ATTENTION = "rope.scaling.original_context_length", "rope.scaling.attn_factor"
_YARN_ATTENTION = "rope.scaling.yarn_attn_factor"
# The logarithm of the factor by which texts are longer, times this, scales attention in YaRN.
_LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
_MSCALES = ("mscale", "mscale_all_dim")
_SECTIONS = "rope.dimension_sections"
# Of configs that state none.
_DEFAULT_SECTIONS = (11, 11, 10)
# metadata key -> field of rope_parameters, for keys of YaRN that are copied; -1 means "not set"
_YARN = {
    "rope.scaling.yarn_ext_factor": "extrapolation_factor",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
# Values with which a key has no effect, for every kind of scaling.
_NEUTRAL = {
    **dict.fromkeys(_LENGTH, (0.0, 1.0)),
    _ATTENTION: (1.0,),
    _YARN_ATTENTION: (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 0.0),
    "rope.scaling.yarn_beta_fast": (-1.0, 32.0),
    "rope.scaling.yarn_beta_slow": (-1.0, 1.0),
}
# Parameters of every Llama 3.1, 3.2 and 3.3, except `factor`.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class Rope(Rule):
    """`rope_parameters`, as in Hugging Face configs.

    Attributes:
        told_by_tensors: whether LongRoPE always stores two tensors, even if they are equal; without a key,
            they imply LongRoPE.
        kinds: the values of `rope.scaling.type` that models of this architecture may have.
    """

    told_by_tensors: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("none", "linear", "yarn", "longrope")
    keys = ("rope.freq_base", "rope.scaling.type", "rope.scaling.finetuned", ORIGINAL, *_NEUTRAL)
    tensors: Sequence[str] = (FACTORS, LONG, SHORT)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the kind of scaling and its parameters."""
        divisors = {LONG, SHORT} & {*header.tensors}
        name = header.get("rope.scaling.type", "longrope" if self.told_by_tensors and divisors else "linear")
        if len(divisors) == 2 and name == "linear" and _factor(header) == 1.0:
            name = "longrope"  # llama.cpp's own writer states "linear" for all kinds without a factor
        if name not in self.kinds:
            known = ", ".join(self.kinds)
            raise GGUFError(f"rope.scaling.type = {brief(name)} is not supported; these are: {known}")
        kind = _KINDS[name]
        for key, neutral in _NEUTRAL.items():
            if key not in kind.keys and (value := header.get(key, neutral[0])) not in neutral:
                raise GGUFError(f"{key} = {value} is invalid for rope.scaling.type = {name!r}")
        for tensor in (LONG, SHORT):
            if tensor in header.tensors and tensor not in kind.tensors:
                raise GGUFError(f"{tensor} is invalid for rope.scaling.type = {name!r}")
        theta = header.positive("rope.freq_base", float) if "rope.freq_base" in header.values else 10000.0
        parameters = kind.read(header)
        if FACTORS in header.tensors and FACTORS in self.tensors:
            if parameters["rope_type"] != "default":
                raise GGUFError(f"{FACTORS} together with rope.scaling.type = {name!r} is unsupported")
            parameters = _read_factors(header, theta)
        return {"rope_parameters": {"rope_theta": theta, **parameters}}

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of the config's kind of scaling."""
        parameters = config.rope_parameters
        kind = parameters["rope_type"]
        scaling: dict[str, Any] = {}
        if kind == "linear":
            scaling = {"rope.scaling.type": "linear", _LENGTH[0]: float(parameters["factor"])}
        elif kind == "yarn":
            scaling = _write_yarn(parameters)
        elif kind == "longrope" and not self._is_one_set(parameters):
            scaling = {
                "rope.scaling.type": "longrope",
                ORIGINAL: parameters["original_max_position_embeddings"],
                _ATTENTION: longrope_attention_factor(parameters),
            }
        elif kind not in ("default", "llama3", "longrope"):
            raise ValueError(f"GGUF does not support rope_type {kind!r}")
        return {"rope.freq_base": float(parameters["rope_theta"]), **scaling}

    def write_tensors(self, config: Any) -> dict[str, Tensor]:
        """Write the divisors of the frequencies, if there are any."""
        parameters = config.rope_parameters
        if parameters["rope_type"] == "llama3":
            return {FACTORS: llama3_factors(parameters, rotated_size(parameters, config.head_dim))}
        if parameters["rope_type"] != "longrope":
            return {}
        long, short = (torch.tensor(parameters[f"{key}_factor"]).float() for key in ("long", "short"))
        return {FACTORS: short} if self._is_one_set(parameters) else {LONG: long, SHORT: short}

    def _is_one_set(self, parameters: dict[str, Any]) -> bool:
        same = parameters["short_factor"] == parameters["long_factor"]
        return not self.told_by_tensors and same and longrope_attention_factor(parameters) == 1.0


class UndividedRope(Rope):
    """Rotary embedding of models for which llama.cpp ignores divisors of single frequencies."""

    tensors = ()


class YarnFactorsRope(Rope):
    """Rotary embedding with YaRN's two factors, of which a file states one.

    Attributes:
        unit: by which files multiply the factor.
    """

    unit: ClassVar[float] = 1.0
    keys = (*Rope.keys, _LOG_MULTIPLIER)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling and its factors."""
        fields = super().read(header)
        if header.get(_LOG_MULTIPLIER, 0.0):
            factor = header.positive(_LOG_MULTIPLIER, float)
            if self.unit != 1.0:
                factor = float(f"{factor / self.unit:.6g}")
            fields["rope_parameters"].update(dict.fromkeys(_MSCALES, factor))
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the factor."""
        factors = {config.rope_parameters.get(name) for name in _MSCALES} - {None}
        if len(factors) > 1:
            raise ValueError(f"GGUF does not support rope_parameters whose {' and '.join(_MSCALES)} differ")
        stated = super().write(without_parameters(config, _MSCALES))
        return {**stated, _LOG_MULTIPLIER: self.unit * factors.pop()} if factors else stated


class PartialRope(Rope):
    """Rotary embedding of a part of each head, whose size `rope.dimension_count` states."""

    keys = (*Rope.keys, ROTATED)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling and the rotated part of a head."""
        width, heads = (header.positive(k, int) for k in ("embedding_length", "attention.head_count"))
        head_dim = header.get("attention.key_length", width // heads)
        if not 0 < (size := header.get(ROTATED, head_dim)) <= head_dim:
            raise GGUFError(f"{ROTATED} = {size} is invalid: a head's size is {head_dim}")
        fields = super().read(header)
        # Stated for whole heads too, which may not be what the config assumes.
        fields["rope_parameters"]["partial_rotary_factor"] = part_of_head(size, head_dim)
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the rotated size."""
        return {**super().write(config), ROTATED: rotated_size(config.rope_parameters, config.head_dim)}


class SectionedRope(PartialRope):
    """Rotary embedding whose frequencies belong to positions in time, in height and in width.

    Files state how many belong to each. It makes no difference to a text, where all three are equal.

    Attributes:
        interleaved: whether frequencies of time, height and width take turns.
    """

    interleaved: ClassVar[bool] = True
    keys = (*PartialRope.keys, _SECTIONS)

    def read(self, header: Header) -> dict[str, Any]:
        """Read the scaling, the rotated part of a head, and the sections."""
        fields = super().read(header)
        if (sections := header.values.get(_SECTIONS)) is not None:
            numbers = isinstance(sections, list) and all(type(size) is int for size in sections)
            if not numbers or len(sections) not in (3, 4):
                raise GGUFError(f"{_SECTIONS} must be three or four integers, got {brief(sections)}")
            if any(sections[3:]) and not is_neutral(_SECTIONS, header.values, has_rotation=True):
                raise GGUFError(f"{_SECTIONS} = {brief(sections)} is unsupported: the last is not for texts")
            kept = sections if any(sections[3:]) else sections[:3]
            fields["rope_parameters"] |= {"mrope_section": kept, "mrope_interleaved": self.interleaved}
        return fields

    def write(self, config: Any) -> dict[str, Any]:
        """Write the keys of every rotary embedding, and the sections."""
        sections = config.rope_parameters.get("mrope_section", _DEFAULT_SECTIONS)
        # llama.cpp's converter writes signed integers.
        return {**super().write(config), _SECTIONS: [*map(np.int32, (*sections, 0)[:4])]}


class ContiguousSectionsRope(SectionedRope):
    """Rotary embedding whose frequencies of time, of height and of width follow each other."""

    interleaved = False


def part_of_head(size: int, head_dim: int) -> float:
    """Return the `partial_rotary_factor` for a size, rounded up if its product would be too small."""
    part = size / head_dim
    return part if int(head_dim * part) == size else math.nextafter(part, 1.0)


def without_parameters(config: Any, names: Sequence[str]) -> SimpleNamespace:
    """Return what `Rope` reads of a config, without the `rope_parameters` of these names."""
    kept = {name: value for name, value in config.rope_parameters.items() if name not in names}
    return SimpleNamespace(rope_parameters=kept, head_dim=config.head_dim)


def _factor(header: Header) -> float:
    """Return the factor by which texts are longer; 0 means no scaling, as in llama.cpp."""
    factors = {float(header.positive(key, float)) for key in _LENGTH if header.get(key, 0.0)}
    if len(factors) > 1:
        raise GGUFError(
            f"{' and '.join(_LENGTH)} must be equal, got {' and '.join(map(str, sorted(factors)))}"
        )
    return factors.pop() if factors else 1.0


def _attention_factor(header: Header) -> float:
    return float(header.positive(_ATTENTION, float)) if _ATTENTION in header.values else 1.0


def original_length(header: Header) -> int:
    """Return the length of texts, in tokens, in the first training of a model."""
    key = ORIGINAL if header.get(ORIGINAL, 0) else "context_length"
    return int(header.positive(key, int))


def _read_none(header: Header) -> dict[str, Any]:
    return {"rope_type": "default"}


def _read_linear(header: Header) -> dict[str, Any]:
    factor = _factor(header)
    return {"rope_type": "default"} if factor == 1.0 else {"rope_type": "linear", "factor": factor}


def _read_yarn(header: Header) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": _factor(header),
        "original_max_position_embeddings": original_length(header),
    }
    for key, name in _YARN.items():
        if header.get(key, -1.0) != -1.0:
            parameters[name] = header.positive(key, float)
    if _YARN_ATTENTION in header.values:
        parameters["attention_factor"] = header.positive(_YARN_ATTENTION, float)
    if (extra := _attention_factor(header)) != 1.0:
        parameters["attention_factor"] = yarn_attention_factor(parameters) * extra
    return parameters


def _write_yarn(parameters: dict[str, Any]) -> dict[str, Any]:
    if not parameters.get("truncate", True):
        raise ValueError("GGUF does not support rope_parameters['truncate']=False")
    scaling = {
        "rope.scaling.type": "yarn",
        _LENGTH[0]: float(parameters["factor"]),
        ORIGINAL: parameters["original_max_position_embeddings"],
    }
    scaling |= {
        key: float(parameters[name]) for key, name in _YARN.items() if parameters.get(name) is not None
    }
    # llama.cpp multiplies the paper's factor by this key, and reads no other key.
    paper = yarn_attention_factor({"factor": parameters["factor"]})
    if not math.isclose(ratio := yarn_attention_factor(parameters) / paper, 1.0, rel_tol=1e-6):
        scaling[_ATTENTION] = ratio
    return scaling


def _frequencies(header: Header) -> int:
    """Return the number of frequencies of a head: half of the numbers that are rotated."""
    stated = (key for key in ("rope.dimension_count", "attention.key_length") if header.get(key, 0))
    if (key := next(stated, None)) is not None:
        rotated = header.positive(key, int)
    else:
        rotated = header.positive("embedding_length", int) // header.positive("attention.head_count", int)
    if rotated > LARGEST_HEAD:
        raise GGUFError(f"the rotated size of a head must be at most {LARGEST_HEAD}, got {rotated}")
    return -(-int(rotated) // 2)  # the model refuses odd numbers


def _read_longrope(header: Header) -> dict[str, Any]:
    if missing := [name for name in (LONG, SHORT) if name not in header.tensors]:
        raise GGUFError(f"rope.scaling.type = 'longrope', but {' and '.join(missing)} is missing")
    return {
        "rope_type": "longrope",
        "short_factor": header.numbers(SHORT, _frequencies(header)).tolist(),
        "long_factor": header.numbers(LONG, _frequencies(header)).tolist(),
        "attention_factor": _attention_factor(header),
        "original_max_position_embeddings": original_length(header),
    }


def _read_factors(header: Header, theta: float) -> dict[str, Any]:
    """Match the divisors of Llama 3.1; read others as LongRoPE with one set for all lengths."""
    factors = header.numbers(FACTORS, _frequencies(header))
    llama3 = {"rope_type": "llama3", "factor": float(factors.max()), **_LLAMA3}
    expected = llama3_factors({**llama3, "rope_theta": theta}, 2 * factors.numel())
    if factors.max() > 1 and torch.allclose(factors, expected, rtol=1e-5):
        return llama3
    return {
        "rope_type": "longrope",
        "short_factor": factors.tolist(),
        "long_factor": factors.tolist(),
        "attention_factor": 1.0,
        "original_max_position_embeddings": original_length(header),
    }


class _Kind(NamedTuple):
    """A `rope.scaling.type`: its reader, and the keys and tensors that only some kinds use."""

    read: Callable[[Header], dict[str, Any]]
    keys: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()


_KINDS = {
    "none": _Kind(_read_none),
    "linear": _Kind(_read_linear, _LENGTH),
    "yarn": _Kind(_read_yarn, (*_LENGTH, _ATTENTION, _YARN_ATTENTION, *_YARN)),
    "longrope": _Kind(_read_longrope, (_ATTENTION,), (LONG, SHORT)),
}
