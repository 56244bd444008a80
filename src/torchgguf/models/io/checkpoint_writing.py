"""Write a model as a Hugging Face checkpoint: config.json, and weights in .safetensors files."""

from __future__ import annotations

import copy
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf.container import LazyTensor
from torchgguf.container.atomic import atomic_write
from torchgguf.logging import bar_disabled
from torchgguf.models.core.model import Model
from torchgguf.models.core.narrowing import became_infinite, narrow, refuse_too_large
from torchgguf.models.io.checkpoint import CONFIG, GENERATION_CONFIG, INDEX, SAFETENSORS
from torchgguf.models.io.devices import Layers, at_hand
from torchgguf.models.io.kept import kept_for_checkpoint
from torchgguf.models.io.places import tensor_places
from torchgguf.models.io.savable import check_savable
from torchgguf.models.io.sentence_transformers import pooling_files
from torchgguf.nn import PackedLayer
from torchgguf.nn.slots import Slot, parameter_slots

_DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# Files of an earlier save, which readers would load as a part of this one.
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def save_checkpoint(
    model: Model,
    folder: Path,
    max_shard_size: int | str,
    dtype: torch.dtype | None,
    *,
    layers: Layers | None = None,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model; errors are those of `PreTrainedModel.save_pretrained`.

    Args:
        model: its parameters may be on the meta device.
        folder: the folder to write to.
        max_shard_size: the largest size of one file, in bytes or as a text such as `"5GB"`.
        dtype: of the weights.
        layers: loads the parameters of a layer; by default they are in the model.
        more: contents of other files by their names. All files appear together.

    Raises:
        ValueError: finite weights are too large for `dtype`, or the model has biases that checkpoints of its
            class do not have; the message names the tensor.
    """
    if model.added_biases:
        raise ValueError(
            f"checkpoints of {type(model).__name__} do not support {model.added_biases[0]}, which its GGUF "
            "file has: save_gguf writes it"
        )
    if dtype is None and any(isinstance(layer, PackedLayer) for layer in model.modules()):
        dtype = model.dtype
    config = copy.copy(model.config)
    config.architectures, config.dtype = [type(model).__name__], dtype or model.dtype
    if model.get_output_embeddings() is not None:  # a head that was replaced no longer shares weights
        config.tie_word_embeddings = model.tied_head is not None
    texts = {CONFIG: config.to_json_string(use_diff=False).encode(), **(more or {})}
    texts |= pooling_files(model.pooling, config.hidden_size, folder)
    if (generation_config := getattr(model, "generation_config", None)) is not None:
        texts[GENERATION_CONFIG] = generation_config.to_json_string().encode()
    tensors = dict(_tensors(model, dtype, layers or partial(at_hand, model)))
    shards = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern=SAFETENSORS.replace(".", "{suffix}."),
        max_shard_size=max_shard_size,
    )
    if shards.is_sharded:
        total = sum(torch.Size(tensor.shape).numel() for tensor in tensors.values())
        metadata = {"total_parameters": total, **shards.metadata}
        index = {"metadata": metadata, "weight_map": shards.tensor_to_filename}
        texts[SAFETENSORS + INDEX] = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
    with ExitStack() as files:  # when all are written, they are renamed, the last one first
        for place in dict.fromkeys((folder / name).parent for name in texts):
            files.enter_context(_made(place))
        for name, text in texts.items():
            _write(files.enter_context(atomic_write(folder / name)), text)
        progress = tqdm(
            total=len(tensors), desc="saving", unit="tensor", delay=1, leave=False, disable=bar_disabled()
        )
        files.enter_context(progress)
        for name, contents in shards.filename_to_tensors.items():
            file = files.enter_context(atomic_write(folder / name))
            write_safetensors(file, {name: tensors[name] for name in contents}, progress.update)
            os.fsync(file.fileno())  # now, so that renaming all of them takes little time
    for path in folder.iterdir():
        if _WEIGHTS.fullmatch(path.name) and path.name not in {*texts, *shards.filename_to_tensors}:
            path.unlink()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Create a folder, and remove it if the block fails and leaves it empty."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # another process has put something there
            for place in missing:
                place.rmdir()
        raise


def _tensors(model: Model, dtype: torch.dtype | None, layers: Layers) -> Iterator[tuple[str, LazyTensor]]:
    """Iterate over all tensors by their names on disk; packed layers become plain ones."""
    plain_model = check_savable(model)
    tied = model.tied_head
    paths = {
        layer: path
        for path, layer in model.named_modules()
        if isinstance(layer, PackedLayer) and layer is not tied
    }

    @lru_cache(maxsize=1)  # one layer's tensors are saved one after the other
    def unpacked(layer: PackedLayer) -> nn.Module:
        plain_layer = layer.dequantize(dtype or model.dtype)
        check_range(plain_layer, layer, paths[layer], refuse_too_large)
        return plain_layer

    def read(layer: PackedLayer, name: str) -> Tensor:
        tensor: Tensor = getattr(unpacked(layer), name).detach()
        return tensor

    def list_slots(layer: nn.Module) -> list[Slot]:
        if not isinstance(layer, PackedLayer):
            return parameter_slots(layer)
        return [
            replace(slot, read=partial(read, layer, slot.name))
            for slot in parameter_slots(plain_model.get_submodule(paths[layer]))
        ]

    for place in tensor_places(model, list_slots, left_out=tied):
        parameter_dtype = dtype or place.slot.read().dtype
        tensor = LazyTensor(place.slot.shape, parameter_dtype, partial(place.read, layers))
        yield from _parts(model, place.name, tensor)
    yield from kept_for_checkpoint(model, dtype or model.dtype)


def check_range(
    plain: nn.Module, packed: PackedLayer, path: str, too_large: Callable[[str, torch.dtype], object]
) -> None:
    """Check that no finite weights of a layer became infinite when it was unpacked to float16.

    Args:
        plain: the unpacked layer.
        packed: the packed one.
        path: its name.
        too_large: is called with the name and the dtype of each parameter with such weights.
    """
    for name, value in plain.named_parameters(recurse=False):
        if value.dtype is torch.float16 and became_infinite(value.detach(), partial(_exact, packed, name)):
            too_large(f"{path}.{name}", value.dtype)


def _exact(packed: PackedLayer, name: str) -> Tensor:
    return packed.dequantize().get_parameter(name).detach()


def _parts(model: Model, name: str, tensor: LazyTensor) -> Iterator[tuple[str, LazyTensor]]:
    """Split a tensor that checkpoints store in parts."""
    base_name = model.base_name(name)
    prefix, other_names = name.removesuffix(base_name), model.architecture.other_names
    if prefix and other_names.prefix:
        prefix = f"{other_names.prefix}."
    for stack in model.architecture.stacks:
        count = stack.matrices(tensor.shape)
        if (names := stack.part_names(base_name, count)) is not None:
            rows, *rest = shape = stack.shape_of_parts(tensor.shape)
            for expert, row in enumerate(names):
                for i, part in enumerate(row):
                    load = partial(_part, tensor, (count, -1, *rest), expert, slice(i * rows, (i + 1) * rows))
                    yield prefix + part, LazyTensor(shape, tensor.dtype, load)
            return
    yield prefix + other_names.in_checkpoints(base_name), tensor


def _part(tensor: LazyTensor, shape: Sequence[int], expert: int, rows: slice) -> Tensor:
    return tensor.load().view(*shape)[expert, rows]


def write_safetensors(
    file: FileIO, tensors: Mapping[str, LazyTensor], written: Callable[[int], Any] = lambda count: None
) -> None:
    """Write a .safetensors file one tensor at a time; the library's own writer needs all of them in memory.

    Format: https://huggingface.co/docs/safetensors.

    Args:
        file: the file, open for writing.
        tensors: by name.
        written: is called with 1 after each tensor.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wide elements first, so that all are aligned to their size.
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    end = 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _write(file, struct.pack("<Q", len(text)) + text)
    for name in order:
        _write(file, _data(name, tensors[name]))
        written(1)


def _data(name: str, tensor: LazyTensor) -> Any:
    """Return a tensor's bytes. Callers must not keep them: they leave memory before the next tensor loads."""
    plain = narrow(tensor.load(), tensor.dtype, partial(refuse_too_large, name, tensor.dtype))
    return plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _write(file: FileIO, data: Any) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
