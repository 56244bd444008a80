"""From the tensors at a place to a model with all its weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf import kernels
from torchgguf.container import GGUFError, GGUFFile, LazyTensor, TensorType
from torchgguf.generation import GenerationMixin
from torchgguf.models import registry
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.model import Model
from torchgguf.models.io.checkpoint import Checkpoint, CheckpointError
from torchgguf.models.io.devices import spread
from torchgguf.models.io.matching import Match, match
from torchgguf.models.io.opening import open_source, read_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.supply import CheckpointSupply, GGUFSupply, TensorSupply
from torchgguf.nn import SlottedLayer, check_attention
from torchgguf.quants import quant_type

logger = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound=Model)


class OpenModel(NamedTuple, Generic[AnyModel]):
    """A model without weights, its parameters on the meta device, and what fills them."""

    model: AnyModel
    supply: TensorSupply
    match: Match


class Filling(NamedTuple):
    """What tensors become when they fill a layer.

    Attributes:
        dtype: of plain parameters; None: as they are stored.
        keep_blocks: matrices stay as they are stored, and vectors are float32. So nothing is rounded to the
            dtype of the activations, and all can be written back as it was.
        device: where they go.
    """

    dtype: torch.dtype | None
    keep_blocks: bool = False
    device: torch.device | str = "cpu"


def load_pretrained(
    choose: Callable[[Architecture], type[Model]],
    place: str | PathLike[str],
    gguf_file: str | None,
    arguments: Mapping[str, Any],
) -> Any:
    """Load the model at a place.

    Args:
        choose: returns the class to load, one of those of an architecture.
        place: as in `PreTrainedModel.from_pretrained`, whose errors these are, too.
        gguf_file: as there.
        arguments: its options.
    """
    options = LoadOptions.of(arguments)
    with open_source(place, gguf_file, **options.hub) as source:
        model = load_model(*_supply(choose, source, options), options)
    spread(model, options.device_map, options.max_memory, options.offload_folder)
    return model


def _supply(
    choose: Callable[[Architecture], type[Model]], source: GGUFFile | Checkpoint, options: LoadOptions
) -> tuple[type[Model], TensorSupply]:
    """Choose the class, and read the config."""
    if isinstance(source, Checkpoint):
        config = read_config(source, options)
        model_class = choose(registry.architecture_of_type(config.model_type))
        return model_class, CheckpointSupply(model_class, source, config, options)
    try:
        model_class = choose(registry.architecture_of_file(source))
    except CheckpointError as error:
        raise GGUFError(str(error)) from None
    return model_class, GGUFSupply(model_class, source, options)


def open_model(
    model_class: type[AnyModel], supply: TensorSupply, options: LoadOptions
) -> OpenModel[AnyModel]:
    """Build a model without weights, and find what fills it.

    Args:
        model_class: what to build.
        supply: its config and its tensors.
        options: those of `from_pretrained` that concern the model, not its weights.

    Raises:
        GGUFError, CheckpointError: by the kind of the supply; the config is invalid, or the tensors do not
            match it.
    """
    check_attention(options.attn_implementation or "sdpa")
    supply.config.architectures = [model_class.__name__]
    try:
        with torch.device("meta"):  # no memory, no initialisation: everything comes from the supply
            model = model_class(supply.config, options.attn_implementation)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch adds where in its own code it is
        raise supply.error(f"the config describes an invalid model: {reason}") from None
    supply.describe(model)
    return OpenModel(model, supply, match(model, supply, options.ignore_mismatched_sizes))


def load_model(model_class: type[AnyModel], supply: TensorSupply, options: LoadOptions) -> AnyModel:
    """Load a model on the CPU, or on the one device that the options name.

    Memory: that of the model, and of one layer twice. Weights that stay as they are stored take none: they
    are mapped. Arguments and errors are those of `open_model`.
    """
    opened = open_model(model_class, supply, options)
    model, tensors = opened.model, opened.match.tensors
    keep_blocks = supply.keeps_blocks and not options.dequantize
    filling = Filling(supply.config.dtype, keep_blocks, options.device)
    total = sum(map(len, tensors.values()))
    # The bar shows itself only where there is something to wait for, and someone to see it.
    with tqdm(total=total, desc="loading", unit="tensor", delay=1, leave=False, disable=None) as bar:
        for path in list(tensors):
            fill_layer(opened, path, filling)
            bar.update(len(tensors.pop(path)))
            if options.quantization_config is not None:
                layer = options.quantization_config.pack(model, path, model.get_submodule(path))
                model.set_submodule(path, layer)
    initialize_new(model, opened.match.new)
    model.tie_weights()
    if isinstance(model, GenerationMixin):
        model.generation_config = options.generation_config or supply.generation_config()
    return model.eval()


def fill_layer(opened: OpenModel[Any], path: str, filling: Filling) -> None:
    """Load the tensors of the layer at `path`; a packed layer replaces it if `filling` keeps blocks."""
    model = opened.model
    for slot, tensor in opened.match.tensors[path]:
        layer = model.get_submodule(path)
        plain = tensor.dtype is filling.dtype is torch.float32  # to which a packed layer would add nothing
        if filling.keep_blocks and slot.packable and not plain:
            assert isinstance(layer, SlottedLayer) and isinstance(tensor.type, TensorType) and filling.dtype
            blocks = tensor.load().to(filling.device).view(torch.uint8)
            packed = layer.pack(slot.name, blocks, quant_type(tensor.type), filling.dtype)
            if packed is not layer:
                model.set_submodule(path, packed)
        else:
            dtype = torch.float32 if filling.keep_blocks and not slot.packable else filling.dtype
            opened.supply.layout.fill(layer, slot.name, _load_plain(tensor, dtype).to(filling.device))


def _load_plain(tensor: LazyTensor, dtype: torch.dtype | None) -> Tensor:
    if tensor.is_packed:
        assert isinstance(tensor.type, TensorType)
        return kernels.dequantize(tensor.load(), quant_type(tensor.type), dtype or torch.float32)
    return tensor.load().to(dtype or tensor.dtype)


def initialize_new(model: Model, names: list[str]) -> None:
    """Initialize the parameters of a head that are in no file, and log their names.

    Other parameters of the same layers keep their values.
    """
    if not names:
        return
    logger.warning(
        "some parameters of %s are not stored; they are new and must be trained: %s",
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
