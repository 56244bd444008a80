"""A Hugging Face checkpoint as a GGUF file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import gguf
import torch

from torchgguf.container import Metadata, write_gguf
from torchgguf.container.writer import Progress
from torchgguf.conversion.layers import PassingLayers
from torchgguf.conversion.requantize import check_not_read
from torchgguf.conversion.verification import Verification, verify
from torchgguf.hub import HubOptions
from torchgguf.models import registry
from torchgguf.models.core.config import Config
from torchgguf.models.io import gguf_writing as saving
from torchgguf.models.io.assembling import Filling, OpenModel, open_model
from torchgguf.models.io.checkpoint import GENERATION_CONFIG, Checkpoint, CheckpointError
from torchgguf.models.io.description import MODEL_CARD
from torchgguf.models.io.opening import is_gguf, read_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.supply import CheckpointSupply
from torchgguf.models.pretrained.model import PreTrainedModel
from torchgguf.models.quantizers.gguf import GGUFQuantizationConfig
from torchgguf.packing import ImportanceMatrix, PackedTensor, PackingReport, Quantization, recipe
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
    progress: Progress | None = None,
    **hub: Unpack[HubOptions],
) -> Path:
    """Write a GGUF file of the language model in a folder or in a repository of the Hub.

    One tensor is read, packed and written at a time, whatever the size of the model. The file is the one that
    `from_pretrained` and `save_gguf` write, which need memory for the model; where a checkpoint has weights
    of several dtypes, each is taken as it is. An old file is replaced only once the new one is whole.

    Args:
        place: a folder or a repository with config.json, weights and tokenizer; or the file with the weights.
        path: where to; of a folder, or of the current one if there is no path, a file in it that is named as
            is usual: `Name-Size-Version-Q4_K_M.gguf`.
        quantization: what to pack to, such as `"Q4_K_M"`. By default all types stay as they are; in any case
            vectors are F32, and what llama.cpp never packs.
        imatrix: which weights matter most, for `quantization` only; a `Quantization` may have its own.
        tokenizer: write the tokenizer too. A file without one does for nothing but its tensors.
        pre: name of the rule by which the tokenizer splits texts, where it cannot be found by trying.
        metadata: further keys to set, over all others.
        report: is told of each tensor.
        progress: is told `(done, total)` bytes as they are written.
        hub: what concerns fetching. Of a repository only the files that are needed are fetched.

    Returns:
        The path of the file.

    Raises:
        CheckpointError: the checkpoint is broken, of an unknown kind, or holds no language model.
        TokenizerError: the tokenizer is not supported, or no rule is known by which it splits texts.
        FileNotFoundError, PermissionError, ConnectionError: as `torchgguf.hub.find_file`.
        GGUFError: the disk is full; nothing was changed.
        ValueError: the config says what GGUF cannot, a tensor cannot be packed so (the message names it), or
            `path` is one of the files to read.
    """
    if quantization is None:
        if imatrix is not None:
            raise ValueError("imatrix= is for packing: say to what, such as quantization='Q4_K_M'")
    else:
        quantization = Quantization.of(quantization, imatrix)
    if pre is not None and not tokenizer:
        raise ValueError("pre= (--pre) says how a tokenizer splits texts, and none is to be written")
    target = Path(path or ".")
    if not target.is_dir() and not target.parent.is_dir():  # said before anything is fetched
        raise FileNotFoundError(f"{target} cannot be written: there is no folder {target.parent}")
    checkpoint, config = _open(place, hub)
    vocabulary = _tokenizer(checkpoint, pre) if tokenizer else None
    for name in (MODEL_CARD, GENERATION_CONFIG):  # of which the file's description is made
        checkpoint.fetch(name)
    opened = _read(checkpoint, config)
    described, tensors = saving.gguf_contents(
        opened.model, vocabulary, metadata or {}, quantization, report, _layers(opened)
    )
    if target.is_dir():
        target = target / file_name(described, quantization)
    check_not_read(target, place, None if quantization is None else quantization.imatrix_file)
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
    progress: Progress | None = None,
    **hub: Unpack[HubOptions],
) -> Verification:
    """Compare a file with the checkpoint that it was made from, tensors and answers: see `verify`.

    Args:
        path: the file.
        place: the folder or the repository.
        progress: told `(done, total)` bytes as they are compared.
        hub: what concerns fetching.

    Raises:
        CheckpointError, FileNotFoundError, PermissionError, ConnectionError, ValueError: as
            `convert_to_gguf` raises them of the checkpoint; and what `verify` raises of the file.
    """
    checkpoint, config = _open(place, hub)
    opened = _read(checkpoint, config)
    _, tensors = saving.gguf_contents(opened.model, None, {}, None, None, _layers(opened))
    dtypes = {tensor.dtype for filled in opened.match.tensors.values() for _, tensor in filled}
    # What is computed of halves is no half: they stay as they are, and are widened where they are multiplied.
    half = _HALVES.get(dtypes.pop()) if len(dtypes) == 1 else None
    packing = None if half is None else GGUFQuantizationConfig(half)

    def load() -> PreTrainedModel:
        return type(opened.model).from_pretrained(
            place, dtype=torch.float32, quantization_config=packing, **checkpoint.hub
        )

    return verify(path, tensors, load, progress=progress)


def file_name(metadata: Metadata, quantization: Quantization | None) -> str:
    """Return the usual name of a file with these metadata, packed so.

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
            f"{place} is no Hugging Face model: `requantize` gives GGUF files other types, and "
            "`convert_to_checkpoint` makes Hugging Face models of them"
        )
    checkpoint = Checkpoint(place, **hub)
    config = read_config(checkpoint, LoadOptions())
    classes = registry.architecture_of_type(config.model_type).classes
    others = {found.__name__ for task, found in classes.items() if task not in ("base", "causal_lm")}
    if found := others.intersection(config.architectures or ()):
        raise CheckpointError(
            f"{checkpoint} holds a {found.pop()}, but GGUF files have no place for any head but that of a "
            f"language model ({classes['causal_lm'].__name__})"
        )
    return checkpoint, config


def _read(checkpoint: Checkpoint, config: Config) -> OpenModel[PreTrainedModel]:
    """Build a model without weights, and find where they are."""
    model_class = registry.architecture_of_type(config.model_type).classes["causal_lm"]
    options = LoadOptions()
    supply = CheckpointSupply(model_class, checkpoint, config, options, passing=True)
    return open_model(model_class, supply, options)


def _tokenizer(checkpoint: Checkpoint, pre: str | None) -> Tokenizer:
    try:
        return AutoTokenizer.from_pretrained(checkpoint.place, pre=pre, **checkpoint.hub)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}; tokenizer=False (--no-tokenizer) writes a file without one"
        ) from None


def _layers(opened: OpenModel[PreTrainedModel]) -> PassingLayers:
    """Read layers from the checkpoint; the model is told which dtypes they have there."""
    for path, filled in opened.match.tensors.items():
        for slot, tensor in filled:  # layers that share a parameter share it still
            parameter = opened.model.get_parameter(f"{path}.{slot.name}")
            parameter.data = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return PassingLayers(opened, Filling(dtype=None))
