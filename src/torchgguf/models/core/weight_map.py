"""Weight maps: the names and layouts of tensors in GGUF files and in Hugging Face checkpoints.

A map consists of rows of templates and is read in both directions. Names are those of modules: what follows
the last dot (`weight`, `bias`) is equal on both sides; only rows of one parameter contain whole names. `{}`
stands for the number of the layer. Hugging Face names are those in the model without a head; models with one
prepend a prefix.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchgguf.nn.factors import is_factor

# Maps a config and a number of rows to an index p: row i of the GGUF tensor is row p[i] of Hugging Face's.
RowOrder = Callable[[Any, int], Tensor]

# The module that scores tokens: the only head that GGUF files store.
HEAD = "lm_head"

_WIDE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class RowPermutation:
    """Permutes rows. Blocks run along the rows, so whole packed rows move and nothing is lost."""

    order: RowOrder

    def to_gguf(self, tensor: Tensor, config: Any) -> Tensor:
        """Return the rows of a Hugging Face tensor, packed or not, in GGUF's order."""
        return _take_rows(tensor, self.order(config, tensor.shape[0]))

    def to_hf(self, tensor: Tensor, config: Any) -> Tensor:
        """Return the rows of a GGUF tensor, packed or not, in Hugging Face's order."""
        return _take_rows(tensor, torch.argsort(self.order(config, tensor.shape[0])))


def _take_rows(tensor: Tensor, index: Tensor) -> Tensor:
    index = index.to(tensor.device)
    if tensor.dim() < 2:
        return tensor.index_select(0, index)
    # torch moves element by element: elements of eight bytes are eight times as fast as single bytes.
    wide = _WIDE[math.gcd(8, tensor.shape[1] * tensor.element_size())]
    return tensor.view(wide).index_select(0, index).view(tensor.dtype)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Multiplies a tensor by factors of the config, which files contain in the weights alone.

    Configs of files state factors of 1, so that what was read is never scaled.

    Attributes:
        factors: returns the factors of a config; each is a number, or a vector with a number for each row.
    """

    factors: Callable[[Any], Sequence[float | Tensor]]

    def _applied(self, config: Any) -> list[float | Tensor]:
        return [x for x in self.factors(config) if isinstance(x, Tensor) or x != 1.0]

    def to_gguf(self, tensor: Tensor, config: Any) -> Tensor:
        """Return the products, in float32 or wider, as llama.cpp's converter calculates them."""
        factors = self._applied(config)
        if factors and tensor.dtype is torch.uint8:
            raise ValueError("GGUF does not support packed weights beside factors: call dequantize() first")
        wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if factors else tensor
        for factor in factors:
            wide = wide * (factor[:, None].to(wide) if isinstance(factor, Tensor) else factor)
        return wide

    def to_hf(self, tensor: Tensor, config: Any) -> Tensor:
        """Return the quotients."""
        for factor in reversed(self._applied(config)):
            tensor = tensor / (factor[:, None].to(tensor) if isinstance(factor, Tensor) else factor)
        return tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One module: its names on both sides, and the transform of its tensors if their layouts differ.

    Attributes:
        applies: returns whether a model with this config has the module: of several rows with the same name
            in GGUF files, one applies.
    """

    gguf: str
    hf: str
    transform: RowPermutation | Scaling | None = None
    applies: Callable[[Any], bool] = lambda config: True


class ParameterRow(Row):
    """One parameter: its whole names on both sides, which do not end in the same word."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A parameter `(E, rows, columns)` that Hugging Face checkpoints store in parts, matrices of each expert.

    The matrix of expert `e`, `parameter[e]`, consists of its parts, one above the other, of equal heights.

    Attributes:
        name: of the parameter; `{}` stands for the number of the layer.
        parts: names of the parts, from top to bottom; a second `{}` stands for the number of the expert.
    """

    name: str
    parts: tuple[str, ...]

    def part_names(self, name: str, experts: int) -> list[list[str]] | None:
        """Return the names of a parameter's parts, a list for each expert; None: of another parameter."""
        before, after = map(re.escape, self.name.split("{}"))
        if (layer := re.fullmatch(rf"{before}(\d+){after}", name)) is None:
            return None
        return [[part.format(layer[1], expert) for part in self.parts] for expert in range(experts)]

    def matrices(self, shape: Sequence[int]) -> int:
        """Return the number of matrices in a parameter, given its shape."""
        return shape[0]

    def shape_of_parts(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of each part, given that of the parameter."""
        return (shape[1] // len(self.parts), *shape[2:])


class Concatenation(Stack):
    """A parameter `(rows, ...)` that Hugging Face checkpoints store in parts, one above the other."""

    def matrices(self, shape: Sequence[int]) -> int:
        """Return 1: the parameter is one matrix."""
        return 1

    def shape_of_parts(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of each part, given that of the parameter."""
        return (shape[0] // len(self.parts), *shape[1:])


@dataclass(frozen=True, slots=True)
class Interleaved:
    """A parameter of experts that checkpoints may store in MXFP4: rows of several matrices in turn.

    Attributes:
        name: of the parameter; `{}` stands for the number of the layer.
        parts: the matrices, by their names in the slots of the layer.
    """

    name: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Modules whose tensors lie one below the other in one tensor of a file.

    Attributes:
        name: of the one, in GGUF files or in checkpoints; `{}` stands for the number of the layer.
        parts: names of the modules on the same side, from top to bottom.
    """

    name: str
    parts: tuple[str, ...]

    def names(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the parts of a tensor, given its name; None: it is another tensor."""
        template, layer, suffix = _split(name)
        if template != self.name:
            return None
        return tuple(f"{part.format(layer)}.{suffix}" for part in self.parts)

    def whole(self, name: str) -> str | None:
        """Return the name of the tensor of which one of this name is the first part; None: it is not."""
        template, layer, suffix = _split(name)
        return f"{self.name.format(layer)}.{suffix}" if template == self.parts[0] else None

    def shape(self, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape of the one tensor, given those of its parts."""
        return (sum(part[0] for part in parts), *parts[0][1:])

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the one tensor."""
        return torch.cat([*parts])


class StackedModules(Joined):
    """Modules outside the layers whose matrices are one tensor `(parts, rows, columns)` of a file."""

    def names(self, name: str) -> tuple[str, ...] | None:
        """Return the names of the parts of a tensor, as `Joined.names`."""
        module, _, suffix = name.rpartition(".")
        return tuple(f"{part}.{suffix}" for part in self.parts) if module == self.name else None

    def whole(self, name: str) -> str | None:
        """Return the name of the tensor of which one of this name is the first part, as `Joined.whole`."""
        module, _, suffix = name.rpartition(".")
        return f"{self.name}.{suffix}" if module == self.parts[0] else None

    def shape(self, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the shape of the one tensor, given those of its parts."""
        return (len(parts), *parts[0])

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the one tensor."""
        return torch.stack([*parts])


class OtherNames:
    """Modules and parameters that Hugging Face checkpoints store under other names.

    Args:
        stored: templates of the names in checkpoints, by those in models. Those of a module apply to all its
            parameters, whose last name (`weight`, `bias`) stays.
        are_written: whether these are the names in new checkpoints, too.
        prefix: what checkpoints of models with a head have in place of `base_model_prefix`; None: the same.
    """

    def __init__(
        self, stored: Mapping[str, str], *, are_written: bool = True, prefix: str | None = None
    ) -> None:
        self.prefix = prefix
        self._stored = stored if are_written else {}
        self._modules = {name: module for module, name in stored.items()}

    def in_checkpoints(self, name: str) -> str:
        """Return the name of a parameter in checkpoints."""
        return _renamed(name, self._stored)

    def in_models(self, name: str) -> str:
        """Return the name of a parameter, given that in checkpoints."""
        return _renamed(name, self._modules)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    template, layer, suffix = _split(name)
    if (parameter := f"{template}.{suffix}") in names:
        return names[parameter].format(layer)
    return f"{names[template].format(layer)}.{suffix}" if template in names else name


NO_OTHER_NAMES = OtherNames({})


class WeightMap:
    """The rows of an architecture."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        self._by_gguf: dict[str, list[Row]] = {}
        for row in self.rows:
            self._by_gguf.setdefault(_key(row, row.gguf), []).append(row)
        self._by_hf: dict[str, list[Row]] = {}
        for row in self.rows:
            self._by_hf.setdefault(_key(row, row.hf), []).append(row)
        of_layers = {re.escape(row.hf.partition("{}")[0]) for row in self.rows if "{}" in row.hf}
        self._layer = re.compile(rf"(?:^|\.)(?:{'|'.join(sorted(of_layers))})(\d+)\.")

    def to_hf(self, name: str, config: Any) -> tuple[str, Row] | None:
        """Return the Hugging Face name of a GGUF tensor and its row, or None if no row matches."""
        key, layer, suffix = _find(name, self._by_gguf)
        row = next((row for row in self._by_gguf.get(key, ()) if row.applies(config)), None)
        return None if row is None else (row.hf.format(layer) + suffix, _row_of(name, row))

    def knows(self, name: str) -> bool:
        """Return whether there is a row for a GGUF tensor."""
        return _find(name, self._by_gguf)[0] in self._by_gguf

    def to_gguf(self, name: str, config: Any) -> tuple[str, Row] | None:
        """Return the GGUF name of a Hugging Face tensor and its row, or None if no row matches.

        Where several rows have one name in models, and none applies, it is the first.
        """
        key, layer, suffix = _find(name, self._by_hf)
        rows = self._by_hf.get(key, [])
        row = next((row for row in rows if row.applies(config)), rows[0] if rows else None)
        return None if row is None else (row.gguf.format(layer) + suffix, _row_of(name, row))

    def count_layers(self, names: Iterable[str]) -> int:
        """Return the number of layers that have tensors, by their Hugging Face names with any prefix."""
        return len({found[1] for name in names if (found := self._layer.search(name)) is not None})


def _row_of(name: str, row: Row) -> Row:
    """Return a row as it applies to a tensor: factors have no rows to move."""
    return replace(row, transform=None) if is_factor(name) else row


def _key(row: Row, name: str) -> str:
    """Return the key of a row, given its name on one side: that of a module ends in a dot."""
    return name if isinstance(row, ParameterRow) else f"{name}."


def _find(name: str, rows: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the key of a tensor's row, the number of its layer, and what follows the row's name."""
    template, layer, suffix = _split(name)
    whole = f"{template}.{suffix}"
    return (whole, layer, "") if whole in rows else (f"{template}.", layer, f".{suffix}")


def _split(name: str) -> tuple[str, str, str]:
    """Split `blk.7.attn_q.weight` into `blk.{}.attn_q`, `7` and `weight`."""
    match = re.search(r"(?<=\.)\d+(?=\.)", name)
    layer = "" if match is None else match[0]
    template = name if match is None else f"{name[: match.start()]}{{}}{name[match.end() :]}"
    module, _, suffix = template.rpartition(".")
    return module, layer, suffix


def _interleaved(config: Any, rows: int) -> Tensor:
    pairs = config.head_dim // 2
    return torch.arange(rows).view(-1, 2, pairs).transpose(1, 2).flatten()


# Of queries and keys, for rotary embeddings over neighbouring pairs: Hugging Face pairs row i of a head with
# row i + D/2; GGUF files of some architectures pair 2i with 2i + 1 (`permute` in llama.cpp's converter).
INTERLEAVED_HEADS = RowPermutation(_interleaved)
