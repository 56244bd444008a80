"""The tensors of a GGUF file by the names and in the shapes that weight maps state, whoever wrote the file.

Writers differ: queries, keys and values are one tensor or three; experts are stacked or, in files of 2023 and
2024, one tensor each; gates and ups of experts are one tensor or two; some names of vectors lack `.weight`.
Rows stay as they are, packed or not: nothing is rounded. A model that is saved again has the usual tensors.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from torchgguf.container import GGUFFile, TensorInfo, TensorSource, TensorType
from torchgguf.container.tensors import storage_nbytes
from torchgguf.models.core.weight_map import WeightMap
from torchgguf.nn.factors import is_factor
from torchgguf.quants import dequantize, quant_type

_QKV = ("attn_q", "attn_k", "attn_v")
_FUSED_QKV = "attn_qkv"
_FUSED_GATE_UP = "ffn_gate_up_exps"
_GATE_UP = ("ffn_gate_exps", "ffn_up_exps")
_FUSED_GROUPS = "ssm_in"
_FUSED_LATENT = "attn_kv_b"
_HEADS = "attention.head_count"
_OF_GROUPS = ("attn_qkv", "attn_gate")
_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(\w+)")
_ONE_EXPERT = re.compile(r"(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight")
_MOST = 64  # matrices of a tensor that are modules of their own
_PATTERN = "attention.sliding_window_pattern"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"

Infos: TypeAlias = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class _Made:
    """A tensor that is made of others.

    Attributes:
        shape: in elements.
        parts: names of the tensors in the file, all of one type.
        make: returns it, given the parts.
        type: of its elements; None: that of the parts.
    """

    shape: tuple[int, ...]
    parts: tuple[str, ...]
    make: Callable[..., Tensor]
    type: TensorType | None = None


_Group: TypeAlias = dict[str, _Made]


class UsualTensors:
    """The tensors of a file, those of other forms in the usual one.

    Args:
        file: the file.
        weights: states which names are usual.
        own: names of usual tensors that are not in the weight map.

    Attributes:
        infos: the headers, by their usual names.
        copy_of_embedding: name of a head that the model lacks; its shape and type are those of the embedding.
    """

    def __init__(self, file: GGUFFile, weights: WeightMap, own: Collection[str] = ()) -> None:
        self._file = file
        self._weights, self._own = weights, own
        self._made = dict[str, _Made]()
        unusual = {name: info for name, info in file.tensors.items() if not self._knows(name)}
        self.copy_of_embedding: str | None = None
        if unusual:
            self._arrange(unusual)
            embedding, head = file.tensors.get(EMBEDDING), unusual.get(OUTPUT)
            if embedding and head and (embedding.shape, embedding.type) == (head.shape, head.type):
                self.copy_of_embedding = OUTPUT
        used = {part for one in self._made.values() for part in one.parts} | {self.copy_of_embedding}
        at = defaultdict[str, list[str]](list)  # in the place of its first part
        for name, one in self._made.items():
            at[one.parts[0]].append(name)
        self.infos = dict[str, TensorInfo]()
        for name, info in file.tensors.items():
            if name not in used:
                self.infos[name] = info
            self.infos |= {made: self._info(made, self._made[made]) for made in at.get(name, ())}

    def _knows(self, name: str) -> bool:
        return name in self._own or self._weights.knows(name)

    def _arrange(self, unusual: Infos) -> None:
        """Find the tensors that are made of unusual ones: all that consist of the same parts, or none."""
        forms = (
            *(self._named, self._stacked, self._split_gate_up, self._joined_gate_up),
            *(self._split_qkv, self._joined_qkv, self._unstacked, self._split_groups, self._split_latent),
        )
        for group in (group for form in forms for group in form(unusual)):
            if all(self._knows(name) and name not in self._file.tensors for name in group):
                self._made |= group

    def _info(self, name: str, made: _Made) -> TensorInfo:
        first = self._file.tensors[made.parts[0]]
        kind = first.type if made.type is None else made.type
        return replace(first, name=name, shape=made.shape, type=kind, nbytes=storage_nbytes(made.shape, kind))

    def load(self, name: str) -> Tensor:
        """Load a tensor, by its usual name."""
        if (made := self._made.get(name)) is None:
            return self._file[name]
        return made.make(*map(self._file.__getitem__, made.parts))

    def sources(self, passing: bool = False) -> dict[str, TensorSource]:
        """Return all tensors, by their usual names, as `GGUFFile.sources` does."""
        sources = self._file.sources(passing)
        usual: dict[str, TensorSource] = {}
        for name, info in self.infos.items():
            if (made := self._made.get(name)) is None:
                usual[name] = sources[name]
            else:
                parts = [sources[part] for part in made.parts]
                usual[name] = TensorSource(made.shape, info.type, partial(_make, made, parts))
        return usual

    def _named(self, unusual: Infos) -> Iterator[_Group]:
        """Complete the names of vectors."""
        for name, info in unusual.items():
            if len(info.shape) == 1:
                yield {f"{name}.weight": _Made(info.shape, (name,), _same)}

    def _stacked(self, unusual: Infos) -> Iterator[_Group]:
        """Stack the matrices of experts."""
        experts: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for name in unusual:
            if found := _ONE_EXPERT.fullmatch(name):
                experts[found[1]][int(found[2])] = name
        for name, parts in experts.items():
            names = tuple(parts[number] for number in sorted(parts))
            if sorted(parts) == list(range(len(parts))) and _are_alike(unusual, names):
                shape = (len(parts), *unusual[names[0]].shape)
                yield {f"{name}_exps.weight": _Made(shape, names, _stack)}

    def _split_gate_up(self, unusual: Infos) -> Iterator[_Group]:
        """Split the matrices or biases of experts into those of gates and those of ups below them."""
        for name, info in unusual.items():
            found = _IN_LAYER.fullmatch(name)
            if found and found[2] == _FUSED_GATE_UP and _has_rows(info, 1) and info.shape[1] % 2 == 0:
                heights = (info.shape[1] // 2,) * 2
                yield _split(
                    name, info, [f"blk.{found[1]}.{part}.{found[3]}" for part in _GATE_UP], 1, heights
                )

    def _joined_gate_up(self, unusual: Infos) -> Iterator[_Group]:
        """Join the matrices of experts' gates and those of ups, of one type."""
        for name, info in unusual.items():
            found = _IN_LAYER.fullmatch(name)
            if found and found[2] == _GATE_UP[0] and not is_factor(name) and len(info.shape) == 3:
                parts = tuple(f"blk.{found[1]}.{part}.{found[3]}" for part in _GATE_UP)
                if all(part in unusual for part in parts) and _are_alike(unusual, parts):
                    shape = (info.shape[0], 2 * info.shape[1], info.shape[2])
                    made = _Made(shape, parts, partial(_concatenated, dim=1))
                    yield {f"blk.{found[1]}.{_FUSED_GATE_UP}.{found[3]}": made}

    def _split_qkv(self, unusual: Infos) -> Iterator[_Group]:
        """Split queries, keys and values, which lie one below the other."""
        for name, info in unusual.items():
            found = _IN_LAYER.fullmatch(name)
            if not found or found[2] != _FUSED_QKV:
                continue
            names = [f"blk.{found[1]}.{part}.{found[3]}" for part in _QKV]
            heights = self._heights(int(found[1]))
            if is_factor(name):
                yield {part: _Made(info.shape, (name,), _same) for part in names}
            elif heights and _has_rows(info, 0) and sum(heights) == info.shape[0]:
                yield _split(name, info, names, 0, heights)

    def _joined_qkv(self, unusual: Infos) -> Iterator[_Group]:
        """Join queries, keys and values of one type."""
        for name in unusual:
            found = _IN_LAYER.fullmatch(name)
            if found and found[2] == _QKV[0] and not is_factor(name):
                parts = tuple(f"blk.{found[1]}.{part}.{found[3]}" for part in _QKV)
                if all(part in unusual and _has_rows(unusual[part], 0) for part in parts) and _are_alike(
                    unusual, parts, from_dim=1
                ):
                    shape = (sum(unusual[part].shape[0] for part in parts), *unusual[name].shape[1:])
                    yield {f"blk.{found[1]}.{_FUSED_QKV}.{found[3]}": _Made(shape, parts, _concatenated)}

    def _unstacked(self, unusual: Infos) -> Iterator[_Group]:
        """Take the matrices of a tensor that are modules of their own."""
        for name, info in unusual.items():
            module, _, suffix = name.rpartition(".")
            if len(info.shape) == 3 and self._knows(f"{module}.0.{suffix}") and info.shape[0] <= _MOST:
                yield {
                    f"{module}.{i}.{suffix}": _Made(info.shape[1:], (name,), partial(_taken, number=i))
                    for i in range(info.shape[0])
                }

    def _heights(self, layer: int) -> tuple[int, ...] | None:
        """Return the rows of queries, keys and values that the metadata state; None: they do not."""
        heads = self._number(_HEADS, layer)
        width = self._number("embedding_length", layer)
        if heads is None or width is None:
            return None
        key_heads = self._number("attention.head_count_kv", layer) or heads
        windowed = "_swa" if self._number(_PATTERN, layer) else ""
        size, value_size = (
            self._number(f"attention.{part}_length{windowed}", layer)
            or self._number(f"attention.{part}_length", layer)
            or width // heads
            for part in ("key", "value")
        )
        return heads * size, key_heads * size, key_heads * value_size

    def _split_groups(self, unusual: Infos) -> Iterator[_Group]:
        """Split queries, keys, values and gates of the gated delta rule, whose rows come in groups."""
        for name, info in unusual.items():
            found = _IN_LAYER.fullmatch(name)
            if not found or found[2] != _FUSED_GROUPS:
                continue
            names = [f"blk.{found[1]}.{part}.{found[3]}" for part in _OF_GROUPS]
            if is_factor(name):
                yield {part: _Made(info.shape, (name,), _same) for part in names}
            elif _has_rows(info, 0) and (rows := self._rows_of_groups(int(found[1]), info.shape[0])):
                yield {
                    part: _Made((len(index), *info.shape[1:]), (name,), partial(_chosen, rows=index))
                    for part, index in zip(names, rows, strict=True)
                }

    def _rows_of_groups(self, layer: int, rows: int) -> tuple[Tensor, Tensor] | None:
        """Return the rows of queries, keys and values, and those of gates; None: not so many are stated."""
        keys = ("ssm.group_count", "ssm.time_step_rank", "ssm.state_size", "ssm.inner_size")
        groups, heads, size, inner = (self._number(key, layer) for key in keys)
        if not groups or not heads or not size or not inner or heads % groups or inner % groups:
            return None
        sizes = (size, size, inner // groups, inner // groups)
        if groups * sum(sizes) != rows:
            return None
        kinds = torch.arange(rows).view(groups, -1).split(sizes, dim=1)
        return torch.cat([kind.flatten() for kind in kinds[:3]]), kinds[3].flatten()

    def _split_latent(self, unusual: Infos) -> Iterator[_Group]:
        """Split what expands latent vectors: files from before 2025-04 do not separate keys and values.

        Keys are transposed, which packed rows do not support: they are unpacked.
        """
        for name, info in unusual.items():
            found = _IN_LAYER.fullmatch(name)
            if not found or found[2] != _FUSED_LATENT or len(info.shape) != 2:
                continue
            heads, rotated = (self._number(key, int(found[1])) for key in (_HEADS, "rope.dimension_count"))
            key, value = (
                self._number(f"attention.{part}_length_mla", int(found[1]))
                or self._number(f"attention.{part}_length", int(found[1]))
                for part in ("key", "value")
            )
            if not heads or not rotated or not key or not value or rotated >= key:
                continue
            key, (rows, rank) = key - rotated, info.shape
            if rows == heads * (key + value):
                layer, suffix = found[1], found[3]
                keys = partial(_latent_keys, heads=heads, key=key, kind=info.type)
                values = partial(_latent_values, heads=heads, key=key)
                yield {
                    f"blk.{layer}.attn_k_b.{suffix}": _Made(
                        (heads, rank, key), (name,), keys, TensorType.F32
                    ),
                    f"blk.{layer}.attn_v_b.{suffix}": _Made((heads, value, rank), (name,), values),
                }

    def _number(self, key: str, layer: int) -> int | None:
        metadata = self._file.metadata
        value = metadata.get(f"{metadata.get('general.architecture')}.{key}")
        if isinstance(value, list):
            value = value[layer] if layer < len(value) else None
        return int(value) if isinstance(value, int) and value > 0 else None


def _are_alike(infos: Infos, names: Collection[str], from_dim: int = 0) -> bool:
    """Return whether tensors are of one type, and of one shape from a dimension on."""
    return len({(infos[name].type, infos[name].shape[from_dim:]) for name in names}) == 1


def _has_rows(info: TensorInfo, dim: int) -> bool:
    """Return whether parts along a dimension are whole rows, or numbers of a vector that is not packed."""
    return dim < len(info.shape) - 1 or (dim < len(info.shape) and info.dtype.is_floating_point)


def _split(
    name: str, info: TensorInfo, parts: Sequence[str], dim: int, heights: Sequence[int]
) -> dict[str, _Made]:
    """Return the parts of a tensor, one below the other."""
    group, start = dict[str, _Made](), 0
    for part, rows in zip(parts, heights, strict=True):
        shape = (*info.shape[:dim], rows, *info.shape[dim + 1 :])
        group[part] = _Made(shape, (name,), partial(_narrowed, dim=dim, start=start, rows=rows))
        start += rows
    return group


def _make(made: _Made, parts: list[TensorSource]) -> Tensor:
    return made.make(*(part.load() for part in parts))


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _taken(tensor: Tensor, number: int) -> Tensor:
    return tensor[number]


def _stack(*parts: Tensor) -> Tensor:
    return torch.stack(parts)


def _concatenated(*parts: Tensor, dim: int = 0) -> Tensor:
    return torch.cat(parts, dim)


def _chosen(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor.index_select(0, rows)


def _narrowed(tensor: Tensor, dim: int, start: int, rows: int) -> Tensor:
    return tensor.narrow(dim, start, rows).contiguous()


def _latent_keys(tensor: Tensor, heads: int, key: int, kind: TensorType) -> Tensor:
    plain = dequantize(tensor.view(torch.uint8), quant_type(kind)) if tensor.dtype is torch.uint8 else tensor
    return _of_heads(plain.float(), heads)[:, :key].transpose(1, 2).contiguous()


def _latent_values(tensor: Tensor, heads: int, key: int) -> Tensor:
    return _of_heads(tensor, heads)[:, key:].contiguous()


def _of_heads(rows: Tensor, heads: int) -> Tensor:
    return rows.view(heads, -1, rows.shape[-1])
