"""From a GGUF file to a model: every tensor finds its parameter, every parameter its tensor."""

from __future__ import annotations

import copy
import logging
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf import kernels
from torchgguf.container import GGUFError, GGUFFile, Metadata, TensorInfo
from torchgguf.generation import GenerationConfig, GenerationMixin
from torchgguf.models.core.config import Config, floating_dtype
from torchgguf.models.core.model import Model
from torchgguf.models.core.provenance import GGUFSource
from torchgguf.models.core.weight_map import HEAD, Row
from torchgguf.models.io.options import LoadOptions
from torchgguf.nn import Slot, SlottedLayer, check_attention
from torchgguf.nn.slots import fill, slots
from torchgguf.quants import quant_type
from torchgguf.tokenization import TokenizerError
from torchgguf.tokenization.kinds.table import read_tokens

logger = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound=Model)


class Place(NamedTuple):
    """Where a tensor goes: a slot of the layer at `path`, by way of `row`."""

    info: TensorInfo
    row: Row
    path: str
    slot: Slot


def open_model(
    model_class: type[AnyModel], file: GGUFFile, options: LoadOptions
) -> tuple[AnyModel, list[Place], list[str]]:
    """Build a model without weights, its parameters on the meta device, and find what fills them.

    Returns:
        The model; where each of the file's tensors goes; the names of parameters of a head for which files
        have no tensors.

    Raises:
        GGUFError: the metadata describe no model, or the tensors do not fit it.
    """
    architecture = model_class.architecture
    options.without_checkpoint()
    config = architecture.read_config(file)
    source = GGUFSource.of(file, copy.deepcopy(config), architecture.config_tensors)
    if options.changes:
        config = config.from_dict(config.to_dict(), **options.changes)
    check_attention(options.attn_implementation or "sdpa")
    config.dtype = floating_dtype(options.dtype)
    config.architectures = [model_class.__name__]
    try:
        with torch.device("meta"):  # no memory, no initialisation: everything comes from the file
            model = model_class(config, options.attn_implementation)
    except (ValueError, ArithmeticError) as error:
        raise GGUFError(f"the metadata describe no model that can be: {error}") from None
    model.gguf = source
    if isinstance(model, GenerationMixin):
        model.generation_config = options.generation_config or _generation_config(config, file.metadata)
    return model, *_match(model, file)


def load_model(model_class: type[AnyModel], file: GGUFFile, options: LoadOptions) -> AnyModel:
    """Build a model from an open file; what there is to say is said of `PreTrainedModel.from_pretrained`."""
    model, places, new = open_model(model_class, file, options)
    # The bar shows itself only where there is something to wait for, and someone to see it.
    for place in tqdm(places, "unpacking", unit="tensor", delay=1, leave=False, disable=None):
        fill_place(model, place, file[place.info.name], options.dequantize)
    initialize_new(model, new)
    model.tie_weights()
    return model.eval()


def _generation_config(config: Config, metadata: Metadata) -> GenerationConfig | None:
    """Say what ends a text as the file's tokenizer does: by its keys, and by tokens that plainly end it."""
    try:
        vocabulary = read_tokens(metadata)
    except TokenizerError:  # the config's ids are all there is to know
        return None
    return GenerationConfig(
        bos_token_id=vocabulary.roles.get("bos"),
        eos_token_id=sorted(vocabulary.ends),
        pad_token_id=config.pad_token_id,
    )


def _match(model: Model, file: GGUFFile) -> tuple[list[Place], list[str]]:
    """Give every tensor its place; also name the parameters of a head for which files have no tensors.

    Raises:
        GGUFError: naming all tensors without a parameter, parameters without a tensor, and wrong shapes.
    """
    architecture = model.architecture
    head = model.get_output_embeddings()
    tied = head if model.config.tie_word_embeddings else None
    open_places = {
        model.base_name(f"{path}.{slot.name}"): (path, slot)
        for path, layer in model.named_modules()
        if layer is not tied
        for slot in slots(layer)
    }
    places, unused, wrong = [], [], []
    for name, info in file.tensors.items():
        if name in architecture.config_tensors:
            continue
        hf_name, row = architecture.weights.to_hf(name) or ("", None)
        if row is not None and hf_name in open_places:
            path, slot = open_places.pop(hf_name)
            places.append(Place(info, row, path, slot))
            if info.shape not in (slot.shape, slot.also):
                wrong.append(f"{name} has shape {info.shape}, expected {slot.shape}")
        # What is not of the model without a head is of a head, which this model may not have.
        elif row is None or head is not None or row.hf != HEAD:
            unused.append(name)
    missing, new = [], []
    for hf_name, (path, slot) in open_places.items():
        target = architecture.weights.to_gguf(hf_name)
        if target is None and not model.is_in_base(f"{path}.{slot.name}"):
            new.append(f"{path}.{slot.name}")
        else:
            missing.append(target[0] if target else hf_name)
    problems = [
        f"{what}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
        for what, names in (
            ("no parameter takes", unused),
            ("no tensor fills", missing),
            ("sizes differ from the metadata", wrong),
        )
        if names
    ]
    if problems:
        raise GGUFError(f"the file does not fit {type(model).__name__}: {'; '.join(problems)}")
    return places, new


def fill_place(model: Model, place: Place, tensor: Tensor, dequantize: bool) -> None:
    """Put a tensor in its place; a matrix that stays as it is in the file brings a packed layer along.

    So nothing is rounded to the activations' dtype unless asked for, and all can be written back as it was.
    """
    kind, dtype = quant_type(place.info.type), model.config.dtype
    if place.row.transform is not None:
        tensor = place.row.transform.to_hf(tensor, model.config)
    layer = model.get_submodule(place.path)
    packable = place.slot.packable
    if packable and not dequantize and not (kind.dtype is dtype is torch.float32):
        assert isinstance(layer, SlottedLayer)
        packed = layer.pack(place.slot.name, tensor.view(torch.uint8), kind, dtype)
        if packed is not layer:
            model.set_submodule(place.path, packed)
        return
    dtype = dtype if packable or dequantize else torch.float32
    value = kernels.dequantize(tensor, kind, dtype) if kind.dtype is None else tensor.to(dtype)
    fill(layer, place.slot.name, value)


def initialize_new(model: Model, names: list[str]) -> None:
    """Give parameters that no checkpoint holds random values, as a model that is built new has."""
    if not names:
        return
    logger.warning(
        "%s has parameters that the checkpoint has not; they are new, and to be trained: %s",
        type(model).__name__,
        ", ".join(names),
    )
    for path in dict.fromkeys(name.rpartition(".")[0] for name in names):
        layer = model.get_submodule(path)
        read = {name: p.detach() for name, p in layer.named_parameters(recurse=False) if not p.is_meta}
        layer.to_empty(device="cpu", recurse=False).to(model.config.dtype)
        model.init_weights(layer)
        for name, value in read.items():
            setattr(layer, name, nn.Parameter(value))
