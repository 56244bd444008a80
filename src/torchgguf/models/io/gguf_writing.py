"""Write a model as a GGUF file: what came from a file and did not change is written as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from os import PathLike
from typing import Any

import torch
from gguf import GGML_QUANT_VERSION
from torch import Tensor

from torchgguf.container import (
    ArrayType,
    Metadata,
    MetadataType,
    TensorSource,
    TensorType,
    ValueType,
    write_gguf,
)
from torchgguf.container.tensor_types import TENSOR_TYPES
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.models.core.config import Config
from torchgguf.models.core.model import Model
from torchgguf.models.core.narrowing import narrow, refuse_too_large
from torchgguf.models.core.pooling import POOLING_KEY, POOLING_NAMES, stated_pooling
from torchgguf.models.core.weight_map import Joined, RowPermutation, Scaling
from torchgguf.models.io.description import describe
from torchgguf.models.io.devices import Layers, at_hand
from torchgguf.models.io.kept import kept_for_gguf
from torchgguf.models.io.places import ParameterPlace, tensor_places
from torchgguf.models.io.savable import check_savable
from torchgguf.nn.slots import slots
from torchgguf.packing import PackingReport, Quantization, file_type_of, pack_tensors, stays_wide
from torchgguf.quants import quant_type
from torchgguf.tokenization.sources.gguf import padded_vocabulary

_TOKENS = "tokenizer.ggml.tokens"
_PLAIN_TYPES = {
    torch.float32: TensorType.F32,
    torch.float16: TensorType.F16,
    torch.bfloat16: TensorType.BF16,
    torch.float64: TensorType.F32,  # llama.cpp does not run F64, and its converter writes none
}


def write_model(
    model: Model,
    path: str | PathLike[str],
    tokenizer: Any,
    extra: Mapping[str, Any],
    quantization: Quantization | None,
    report: PackingReport | None,
    progress: ByteProgress | None,
) -> None:
    """Write a model; arguments and errors are those of `PreTrainedModel.save_gguf`."""
    metadata, tensors = gguf_contents(model, tokenizer, extra, quantization, report)
    write_gguf(path, metadata, tensors, progress=progress)


def gguf_contents(
    model: Model,
    tokenizer: Any,
    extra: Mapping[str, Any],
    quantization: Quantization | None,
    report: PackingReport | None,
    layers: Layers | None = None,
) -> tuple[Metadata, dict[str, TensorSource]]:
    """Return the metadata and the tensors of a model's file; errors are those of `PreTrainedModel.save_gguf`.

    Args:
        model: its parameters may be on the meta device.
        tokenizer: as in `save_gguf`.
        extra: further metadata.
        quantization: as in `save_gguf`.
        report: as in `save_gguf`.
        layers: loads the parameters of a layer; by default they are in the model.
    """
    tensors = _tensors(model, layers or partial(at_hand, model))
    types = {name: source.type for name, source in tensors.items()}
    tensors = _joined(tensors, model.architecture.joined)
    metadata = _metadata(model, tokenizer, tensors)
    if quantization is not None:
        tensors = pack_tensors(metadata, tensors, quantization, report)
    elif model.gguf is None or types != model.gguf.types:
        _describe_types(metadata, tensors)
    metadata.update(extra)
    return metadata, tensors


def _states_head(model: Model) -> bool:
    """Return whether the file stores the head: not a tied one, unless llama.cpp requires it."""
    wanted = model.architecture.states_head and model.gguf is None
    return wanted or not model.config.tie_word_embeddings


def _tensors(model: Model, layers: Layers) -> dict[str, TensorSource]:
    """Return all tensors of the file, in the order of the source, new ones last."""
    main = model.architecture.main_class
    if not isinstance(model, main) and model.get_output_embeddings() is None and _states_head(model):
        raise ValueError(
            f"{type(model).__name__} has no head, and a GGUF file needs one: save the whole model"
        )
    check_savable(model)
    types = model.gguf.types if model.gguf else {}
    tensors = {name: TensorSource.of(tensor) for name, tensor in _config_tensors(model).items()}
    for place in tensor_places(model, slots, left_out=None if _states_head(model) else model.tied_head):
        hf_name = model.base_name(place.name)
        if (target := model.architecture.weights.to_gguf(hf_name, model.config)) is None:
            raise ValueError(f"GGUF files have no tensor for the parameter {hf_name}")
        name, row = target
        tensors[name] = _source(place, name, row.transform, model.config, types.get(name), layers)
    tensors |= kept_for_gguf(model)
    return {name: tensors[name] for name in dict.fromkeys((*types, *tensors)) if name in tensors}


def _joined(tensors: dict[str, TensorSource], joined: Sequence[Joined]) -> dict[str, TensorSource]:
    """Return tensors with those that files store as one joined, unless their types differ."""
    groups: dict[str, tuple[Joined, str, tuple[str, ...]]] = {}
    for one, name in product(joined, tensors):
        if (whole := one.whole(name)) is not None:
            parts = one.names(whole) or ()
            kinds = {(tensors[part].type, *tensors[part].shape[1:]) for part in parts if part in tensors}
            if len(kinds) == 1 and all(part in tensors for part in parts):
                groups[name] = one, whole, parts
    dropped = {part for _, _, parts in groups.values() for part in parts[1:]}
    made = dict[str, TensorSource]()
    for name, source in tensors.items():
        if name in groups:
            one, whole, parts = groups[name]
            made[whole] = _made(one, [tensors[part] for part in parts])
        elif name not in dropped:
            made[name] = source
    return made


def _made(one: Joined, parts: Sequence[TensorSource]) -> TensorSource:
    shape = one.shape([part.shape for part in parts])
    return TensorSource(shape, parts[0].type, lambda: one.join([part.load() for part in parts]))


def _source(
    place: ParameterPlace,
    name: str,
    transform: RowPermutation | Scaling | None,
    config: Config,
    old: TensorType | None,
    layers: Layers,
) -> TensorSource:
    """Return a tensor as the file stores it."""
    slot = place.slot
    wide = len(slot.shape) < 2 or stays_wide(name)
    kind = slot.quant_type or quant_type(_plain_type(slot.read(), old, wide))

    def load() -> Tensor:
        rows = place.read(layers)
        if transform is not None:
            rows = transform.to_gguf(rows, config)
        if slot.quant_type is not None:
            return rows.view(kind.dtype or torch.uint8)
        assert kind.dtype is not None
        return narrow(rows, kind.dtype, partial(refuse_too_large, name, kind.dtype))

    return TensorSource(slot.shape, TENSOR_TYPES[kind.id], load)


def _plain_type(parameter: Tensor, old: TensorType | None, wide: bool) -> TensorType:
    """Return the type of a plain tensor: the old half type if it loses nothing, else that of the dtype."""
    if old in (TensorType.F16, TensorType.BF16):
        half = quant_type(old).dtype
        if torch.equal(parameter.to(half).to(parameter.dtype), parameter):
            return old
    if wide:  # vectors too: llama.cpp adds and multiplies them in this type only
        return TensorType.F32
    return _PLAIN_TYPES[parameter.dtype]


def _config_tensors(model: Model) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for rule in model.architecture.rules:
        new = rule.write_tensors(model.config)
        if model.gguf is not None and _equal(new, rule.write_tensors(model.gguf.config)):
            kept = model.gguf.config_tensors
            new = {name: kept[name] for name in rule.tensors if name in kept}
        tensors |= new
    return tensors


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _metadata(model: Model, tokenizer: Any, tensors: Mapping[str, TensorSource]) -> Metadata:
    """Return the metadata of the source with the changes; without a source, those of the config."""
    architecture, source = model.architecture, model.gguf
    if source is not None:
        metadata = source.metadata.copy()
        name = metadata["general.architecture"]
    else:
        name = architecture.gguf_of(model.config)
        metadata = describe(name, model.origin, tensors)
    for rule in architecture.rules:
        stated = rule.write(model.config)
        if source is not None:
            if stated == rule.write(source.config):
                continue
            for key in rule.keys:
                metadata.pop(f"{name}.{key}", None)
        for key, value in stated.items():
            full_key = f"{name}.{key}"
            metadata.set(full_key, value, metadata.types.get(full_key, _type_of_integers(value)))
    if model.pooling != stated_pooling(metadata):
        key = f"{name}.{POOLING_KEY}"
        metadata.pop(key, None)
        if model.pooling is not None:
            metadata[key] = POOLING_NAMES.index(model.pooling)
    if tokenizer is not None:
        _replace_vocabulary(metadata, tokenizer.to_gguf(vocab_size=model.config.vocab_size))
    elif source is None:
        metadata["tokenizer.ggml.model"] = "no_vocab"
    elif model.config.vocab_size != source.config.vocab_size and _TOKENS in metadata:
        metadata = padded_vocabulary(metadata, model.config.vocab_size)
    return metadata


def _type_of_integers(value: Any) -> MetadataType | None:
    """Return the type in which llama.cpp's converter states a list of integers; None: not such a list."""
    is_list = isinstance(value, list) and {*map(type, value)} == {int}
    return ArrayType(ValueType.INT32) if is_list else None


def _replace_vocabulary(metadata: Metadata, vocabulary: Metadata) -> None:
    for key in [key for key in metadata if key.startswith("tokenizer.") and key not in vocabulary]:
        del metadata[key]
    for key, value in vocabulary.items():
        if metadata.get(key) != value:
            metadata.set(key, value, vocabulary.types[key])


def _describe_types(metadata: Metadata, tensors: Mapping[str, TensorSource]) -> None:
    """Set the file type: the type of most bytes, if the format has a number for it."""
    sizes: Counter[TensorType] = Counter()
    for source in tensors.values():
        sizes[source.type] += source.nbytes
    ((most, _),) = sizes.most_common(1)
    if (file_type := file_type_of(most.name)) is not None:
        metadata["general.file_type"] = file_type
    metadata.setdefault("general.quantization_version", GGML_QUANT_VERSION)
