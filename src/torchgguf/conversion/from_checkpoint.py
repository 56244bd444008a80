"""Convert a Hugging Face checkpoint to a GGUF file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import gguf
import torch

from torchgguf.container import Metadata, write_gguf
from torchgguf.container.atomic import check_not_read
from torchgguf.container.reading.recognition import is_gguf_file
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.conversion.layers import PassingLayers
from torchgguf.conversion.verification import Verification, verify
from torchgguf.hub import HubOptions
from torchgguf.models import registry
from torchgguf.models.core.config import Config
from torchgguf.models.io import gguf_writing
from torchgguf.models.io.assembling import Filling, OpenModel, open_model
from torchgguf.models.io.card_reading import MODEL_CARD
from torchgguf.models.io.checkpoint import GENERATION_CONFIG, Checkpoint, CheckpointError
from torchgguf.models.io.opening import is_gguf, read_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.places import ParameterPlace
from torchgguf.models.io.sentence_transformers import read_pooling
from torchgguf.models.io.supply import CheckpointSupply
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.models.quantizers.gguf import GGUFQuantizationConfig
from torchgguf.nn import SlottedLayer
from torchgguf.packing import ImportanceMatrix, PackedTensor, PackingReport, Quantization, recipe
from torchgguf.quants import quant_type
from torchgguf.tokenization import AutoTokenizer, Tokenizer

# What is in a file's usual name, in the order in which it is there.
_NAME_PARTS = ("name", "basename", "finetune", "version", "size_label")
_HALVES = {torch.float16: "F16", torch.bfloat16: "BF16"}


def convert_to_gguf(
    place: str | PathLike[str],
    path: str | PathLike[str] | None = None,
    *,
    quantization: Quantization | str | None = None,
    imatrix: ImportanceMatrix | str | PathLike[str] | None = None,
    tokenizer: bool = True,
    pre: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    report: PackingReport | None = None,
    progress: ByteProgress | None = None,
    **hub: Unpack[HubOptions],
) -> Path:
    """Convert the language model in a folder or a repository of the Hub to a GGUF file.

    One tensor is loaded, packed and written at a time, regardless of the size of the model. The result equals
    that of `from_pretrained` and `save_gguf`, which need memory for the whole model. If the weights of a
    checkpoint have several dtypes, each keeps its own. An existing file is replaced when the new one is
    complete.

    Args:
        place: a folder or a repository with config.json, weights and tokenizer; or the file with the weights.
        path: the new file, or a folder for it, by default the current one. In a folder the file gets the
            usual name: `Name-Size-Version-Q4_K_M.gguf`.
        quantization: the options for packing, or the name of a recipe such as `"Q4_K_M"`. By default all
            types stay. Vectors, and whatever llama.cpp never packs, are always F32.
        imatrix: the importance matrix for `quantization`; it replaces the one of a `Quantization`.
        tokenizer: whether to write the tokenizer too; programs need it to run the model.
        pre: the name of the rule by which the tokenizer splits texts, if it is not recognized.
        metadata: more keys to set; they replace all others.
        report: is filled with the written tensors.
        progress: is called with `(done, total)` bytes.
        hub: options for downloads. Only the needed files of a repository are downloaded.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: the checkpoint is invalid, of an unknown kind, or not a language model.
        TokenizerError: the tokenizer is unsupported, or its splitting rule is unknown.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
        GGUFError: the disk is full; nothing was changed.
        ValueError: GGUF does not support the config, packing a tensor is not possible (the message names it),
            or `path` is one of the files to read.
    """
    if quantization is None:
        if imatrix is not None:
            raise ValueError("imatrix= requires quantization=, such as quantization='Q4_K_M'")
    else:
        quantization = Quantization.of(quantization, imatrix)
    if pre is not None and not tokenizer:
        raise ValueError(
            "pre= (--pre) requires a tokenizer, but tokenizer=False (--no-tokenizer) excludes it"
        )
    target = Path(path or ".")
    if not target.is_dir() and not target.parent.is_dir():  # checked before any download
        raise FileNotFoundError(f"cannot write {target}: there is no folder {target.parent}")
    checkpoint, config = _open(place, hub)
    vocabulary = _tokenizer(checkpoint, pre) if tokenizer else None
    for name in (MODEL_CARD, GENERATION_CONFIG):  # the metadata are made from these
        checkpoint.fetch(name)
    opened = _read(checkpoint, config)
    described, tensors = gguf_writing.gguf_contents(
        opened.model, vocabulary, metadata or {}, quantization, report, _layers(opened)
    )
    if target.is_dir():
        target = target / file_name(described, quantization)
    read = (file for file in checkpoint.folder.iterdir() if file.is_file() and not is_gguf_file(file))
    check_not_read(target, *read, None if quantization is None else quantization.imatrix_file)
    write_gguf(target, described, tensors, progress=progress)
    if report is not None and quantization is None:
        for name, source in tensors.items():
            kind = source.type
            report.add(PackedTensor(name, source.shape, kind, kind, kind, source.nbytes))
    return target


def verify_converted(
    path: str | PathLike[str],
    place: str | PathLike[str],
    *,
    progress: ByteProgress | None = None,
    **hub: Unpack[HubOptions],
) -> Verification:
    """Compare a file with the checkpoint that it was converted from, see `verify`.

    Args:
        path: the file.
        place: the folder or the repository.
        progress: is called with `(done, total)` bytes of compared tensors.
        hub: options for downloads.

    Raises:
        CheckpointError, FileNotFoundError, PermissionError, ConnectionError, ValueError: as
            `convert_to_gguf`, for the checkpoint.
        GGUFError: as `verify`, for the file.
    """
    checkpoint, config = _open(place, hub)
    opened = _read(checkpoint, config)
    _, tensors = gguf_writing.gguf_contents(opened.model, None, {}, None, None, _layers(opened))
    dtypes = {tensor.dtype for filled in opened.match.tensors.values() for _, tensor in filled}
    # 16-bit weights stay packed, so that the source needs no more memory; layers multiply them in float32.
    half = _HALVES.get(dtypes.pop()) if len(dtypes) == 1 else None
    packing = None if half is None else GGUFQuantizationConfig(half)

    def load() -> PreTrainedModel:
        return type(opened.model).from_pretrained(
            place, dtype=torch.float32, quantization_config=packing, **checkpoint.hub
        )

    return verify(path, tensors, load, progress=progress)


def file_name(metadata: Metadata, quantization: Quantization | None) -> str:
    """Return the usual name of a file with these metadata and this packing.

    Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#gguf-naming-convention
    """
    stated: dict[str, Any] = dict(metadata)
    if quantization is None:
        kind = gguf.LlamaFileType(stated["general.file_type"]).name.partition("_")[2]
    else:
        kind = recipe(quantization.recipe).name
    parts: list[Any] = [*(stated.get(f"general.{part}") for part in _NAME_PARTS), kind]
    return f"{gguf.naming_convention(*parts)}.gguf"


def _open(place: str | PathLike[str], hub: HubOptions) -> tuple[Checkpoint, Config]:
    """Read the config of a language model."""
    if Path(place).exists() and is_gguf(Path(place)):
        raise CheckpointError(
            f"{place} is a GGUF file, not a Hugging Face model: use `requantize` to change its types, and "
            "`convert_to_checkpoint` to convert it to a Hugging Face model"
        )
    checkpoint = Checkpoint(place, **hub)
    config = read_config(checkpoint, LoadOptions())
    architecture = registry.architecture_of_config(config)
    known = (architecture.classes["base"], architecture.main_class)
    others = {found.__name__ for found in architecture.classes.values() if found not in known}
    if found := others.intersection(config.architectures or ()):
        raise CheckpointError(
            f"{checkpoint} contains a {found.pop()}, but GGUF supports only the head of a language model "
            f"({architecture.main_class.__name__})"
        )
    return checkpoint, config


def _read(checkpoint: Checkpoint, config: Config) -> OpenModel[PreTrainedModel]:
    """Build a model without weights, and find their positions in the checkpoint."""
    model_class = registry.architecture_of_config(config).main_class
    options = LoadOptions()
    supply = CheckpointSupply(model_class, checkpoint, config, options, passing=True)
    opened: OpenModel[PreTrainedModel] = open_model(model_class, supply, options)
    opened.model.pooling = read_pooling(checkpoint)
    return opened


def _tokenizer(checkpoint: Checkpoint, pre: str | None) -> Tokenizer:
    try:
        return AutoTokenizer.from_pretrained(checkpoint.place, pre=pre, **checkpoint.hub)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; tokenizer=False (--no-tokenizer) writes a file without one"
        ) from None


def _layers(opened: OpenModel[PreTrainedModel]) -> PassingLayers:
    """Load layers from the checkpoint; the empty parameters get the types that they have there."""
    model = opened.model
    for path, filled in opened.match.tensors.items():
        if any(tensor.is_packed for _, tensor in filled):
            _pack_empty(opened, path)
            continue
        for slot, tensor in filled:  # layers that share a parameter still share it
            parameter = model.get_parameter(ParameterPlace(path, slot).name)
            parameter.data = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return PassingLayers(opened, Filling(dtype=None, keep_packed=True))


def _pack_empty(opened: OpenModel[PreTrainedModel], path: str) -> None:
    """Replace a layer by its packed form, whose parameters are empty."""
    layer = opened.model.get_submodule(path)
    # A packed form accepts other tensors after its blocks.
    for slot, tensor in sorted(opened.match.tensors[path], key=lambda each: not each[1].is_packed):
        assert isinstance(layer, SlottedLayer)
        if isinstance(kind := tensor.type, torch.dtype):
            layer.fill(slot.name, torch.empty(tensor.shape, dtype=kind, device="meta"))
            continue
        row_bytes = quant_type(kind).bytes_per_row(tensor.shape[-1])
        blocks = torch.empty((*tensor.shape[:-1], row_bytes), dtype=torch.uint8, device="meta")
        layer = layer.pack(slot.name, blocks, quant_type(kind), torch.float32)
    opened.model.set_submodule(path, layer)
