"""Build a model, and fill it with the tensors of a GGUF file or of a Hugging Face checkpoint."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf import kernels
from torchgguf.container import GGUFError, GGUFFile, LazyTensor, TensorType
from torchgguf.generation import GenerationMixin
from torchgguf.logging import bar_disabled
from torchgguf.models import registry
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.model import Model
from torchgguf.models.core.narrowing import became_infinite, narrow, refuse_too_large, warn_of_infinite
from torchgguf.models.io.checkpoint import Checkpoint, CheckpointError
from torchgguf.models.io.devices import spread
from torchgguf.models.io.matching import Match, match
from torchgguf.models.io.opening import open_source, read_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.places import ParameterPlace
from torchgguf.models.io.supply import CheckpointSupply, GGUFSupply, TensorSupply
from torchgguf.nn import PackedLayer, QuantizedLinear, SlottedLayer, check_attention
from torchgguf.nn.factors import FACTOR_KINDS, SCALE, factor_name, times_factor
from torchgguf.quants import quant_type

_logger = logging.getLogger(__name__)

_HALVES = (torch.float16, torch.bfloat16)
_SMALL_HEAD = 1 << 22  # weights

AnyModel = TypeVar("AnyModel", bound=Model)


class OpenModel(NamedTuple, Generic[AnyModel]):
    """A model whose parameters are on the meta device, and what fills them.

    Attributes:
        model: the model.
        supply: where its tensors come from.
        match: which tensors fill which layers.
    """

    model: AnyModel
    supply: TensorSupply
    match: Match


class Filling(NamedTuple):
    """What tensors become when they fill a layer.

    Attributes:
        dtype: of plain parameters. None keeps the dtype that each tensor is stored in.
        keep_blocks: whether matrices stay as they are stored, and vectors become float32. Then nothing is
            rounded to the dtype of the activations, and saving writes the same bytes.
        keep_packed: whether matrices that are stored packed stay so.
        device: of the parameters.
        too_large: is called with the name of a parameter, and `dtype`, if finite numbers became infinite.
    """

    dtype: torch.dtype | None
    keep_blocks: bool = False
    keep_packed: bool = False
    device: torch.device | str = "cpu"
    too_large: Callable[[str, torch.dtype], object] = refuse_too_large


def load_pretrained(
    choose: Callable[[Architecture], type[Model]],
    place: str | PathLike[str],
    gguf_file: str | None,
    arguments: Mapping[str, Any],
) -> Any:
    """Load the model at a place; errors are those of `PreTrainedModel.from_pretrained`.

    Args:
        choose: returns the class to load, one of those of an architecture.
        place: as in `from_pretrained`.
        gguf_file: as in `from_pretrained`.
        arguments: the options of `from_pretrained`.

    Returns:
        The model.
    """
    options = LoadOptions.of(arguments)
    check_attention(options.attn_implementation or "sdpa")  # before anything is fetched
    with open_source(place, gguf_file, mmap=options.mmap, **options.hub) as source:
        model = load_model(*_supply(choose, source, options), options)
    model.name_or_path = model.config.name_or_path = str(place)  # PEFT reads the first
    spread(model, options.device_map, options.max_memory, options.offload_folder)
    return model


def _supply(
    choose: Callable[[Architecture], type[Model]], source: GGUFFile | Checkpoint, options: LoadOptions
) -> tuple[type[Model], TensorSupply]:
    """Return the class to load, and its config and tensors."""
    if isinstance(source, Checkpoint):
        config = read_config(source, options)
        model_class = choose(registry.architecture_of_config(config))
        return model_class, CheckpointSupply(model_class, source, config, options)
    try:
        model_class = choose(registry.architecture_of_file(source))
    except CheckpointError as error:
        raise GGUFError(str(error)) from None
    return model_class, GGUFSupply(model_class, source, options)


def open_model(
    model_class: type[AnyModel], supply: TensorSupply, options: LoadOptions
) -> OpenModel[AnyModel]:
    """Build a model on the meta device, and match its parameters with tensors.

    Args:
        model_class: the class to build.
        supply: its config and its tensors.
        options: of `from_pretrained`; those that concern the values of the weights are not read.

    Returns:
        The model and the match.

    Raises:
        GGUFError: the config of a GGUF file is invalid, or does not match the tensors.
        CheckpointError: the same of a checkpoint.
    """
    supply.config.architectures = [model_class.__name__]
    _check_layers(model_class, supply)
    with _no_collections():
        try:
            with torch.device("meta"):  # no memory, no initialization: all values come from the supply
                model = model_class(supply.config, options.attn_implementation)
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]  # torch appends a trace of its own code
            raise supply.error(f"the config describes an invalid model: {reason}") from None
        supply.describe(model)
        return OpenModel(model, supply, match(model, supply, options.ignore_mismatched_sizes))


@contextmanager
def _no_collections() -> Iterator[None]:
    """Leave garbage where it is: to look for some among so many new objects takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_layers(model_class: type[Model], supply: TensorSupply) -> None:
    """Refuse a config with more layers than have tensors: making each takes time and memory."""
    stated = supply.config.layers_with_tensors
    if stated > (proven := model_class.architecture.weights.count_layers(supply.tensors)):
        raise supply.error(f"the config states {stated} layers, but there are tensors of {proven}")


def load_model(model_class: type[AnyModel], supply: TensorSupply, options: LoadOptions) -> AnyModel:
    """Load a model onto the CPU, or onto the device that the options name, if it is a single one.

    It needs the memory of the model, and of one layer twice. Weights that stay as they are stored need none:
    they remain in the mapped files. Arguments and errors are those of `open_model`.
    """
    opened = open_model(model_class, supply, options)
    model, tensors = opened.model, opened.match.tensors
    keep_blocks = supply.keeps_blocks and not options.dequantize
    infinite: list[str] = []
    filling = Filling(
        supply.config.dtype,
        keep_blocks,
        not options.dequantize and options.quantization_config is None,
        options.device,
        lambda name, dtype: infinite.append(name),
    )
    total = sum(map(len, tensors.values()))
    stored = sum(math.prod(slot.shape) for each in tensors.values() for slot, _ in each)
    # The bar appears after a second, and only on a terminal.
    with tqdm(
        total=total, desc="loading", unit="tensor", delay=1, leave=False, disable=bar_disabled()
    ) as bar:
        for path in list(tensors):
            fill_layer(opened, path, filling)
            bar.update(len(tensors.pop(path)))
            if options.quantization_config is not None:
                layer = options.quantization_config.pack(model, path, model.get_submodule(path))
                model.set_submodule(path, layer)
    warn_of_infinite(infinite, supply.config.dtype)
    _check_new(opened, stored, options)
    initialize_new(model, opened.match.new)
    model.tie_weights()
    if isinstance(model, GenerationMixin):
        model.generation_config = options.generation_config or supply.generation_config()
    return model.eval()


def fill_layer(opened: OpenModel[Any], path: str, filling: Filling) -> None:
    """Load the tensors of one layer.

    Args:
        opened: the model. A packed layer replaces the plain one where `filling` keeps blocks.
        path: name of the layer.
        filling: what the tensors become.
    """
    model, filled = opened.model, opened.match.tensors[path]
    matrices = [slot.name for slot, _ in filled if slot.factors is not None]
    of_factors = {factor_name(name, kind) for name in matrices for kind in FACTOR_KINDS}
    factors = {slot.name: tensor for slot, tensor in filled if slot.name in of_factors}
    scales_bias = SCALE in factors and _scales_bias(model, path, {s.name: t for s, t in filled})
    for slot, tensor in filled:
        layer = model.get_submodule(path)
        if slot.name in factors:
            if isinstance(layer, PackedLayer):  # those of plain layers are in the weights
                layer.fill(slot.name, tensor.load().to(filling.device, torch.float32))
            continue
        factor = factors.get(factor_name(slot.name)) if slot.factors else None
        if scales_bias and slot.name == "bias":
            if isinstance(layer, QuantizedLinear):
                layer.scales_bias = True
            else:
                factor = factors[SCALE]
        # A packed layer would keep the same values.
        is_plain = tensor.dtype is filling.dtype is torch.float32 and factor is None
        keep = filling.keep_blocks or (filling.keep_packed and tensor.is_packed)
        if keep and slot.packable and not is_plain:
            assert isinstance(layer, SlottedLayer) and isinstance(tensor.type, TensorType)
            blocks = tensor.load().to(filling.device).view(torch.uint8)
            dtype = filling.dtype or torch.float32
            packed = layer.pack(slot.name, blocks, quant_type(tensor.type), dtype)
            if packed is not layer:
                model.set_submodule(path, packed)
        else:
            stays_wide = filling.dtype in _HALVES and slot.name.partition(".")[0] in getattr(
                layer, "wide", ()
            )
            is_vector = filling.keep_blocks and not slot.packable
            wanted = torch.float32 if is_vector or stays_wide else filling.dtype
            name = ParameterPlace(path, slot).name
            too_large = partial(filling.too_large, name, wanted or tensor.dtype)
            if factor is not None:
                tensor = replace(tensor, type=torch.float32, load=partial(_scaled, tensor, factor))
            plain = _load_plain(tensor, wanted, too_large)
            opened.supply.layout.fill(layer, slot.name, plain.to(filling.device))


def _scales_bias(model: Model, path: str, tensors: Mapping[str, LazyTensor]) -> bool:
    """Return whether a factor applies to the bias of a layer, too.

    In MLPs of some architectures llama.cpp multiplies sums with biases, unless blocks are NVFP4.
    """
    if not model.architecture.scales_biases:
        return False
    row = model.architecture.weights.to_gguf(f"{model.base_name(path)}.bias", model.config)
    in_mlp = row is not None and row[1].gguf.startswith("blk.{}.ffn_")
    return in_mlp and "bias" in tensors and tensors["weight"].type is not TensorType.NVFP4


def _scaled(tensor: LazyTensor, factor: LazyTensor) -> Tensor:
    plain = _load_plain(tensor, torch.float32, lambda: None)
    return times_factor(plain, factor.load())


def _load_plain(tensor: LazyTensor, dtype: torch.dtype | None, too_large: Callable[[], object]) -> Tensor:
    if not tensor.is_packed:
        return narrow(tensor.load(), dtype or tensor.dtype, too_large)
    assert isinstance(tensor.type, TensorType)
    blocks, kind = tensor.load(), quant_type(tensor.type)
    plain = kernels.dequantize(blocks, kind, dtype or torch.float32)
    if dtype is torch.float16 and became_infinite(plain, lambda: kernels.dequantize(blocks, kind)):
        too_large()
    return plain


def _check_new(opened: OpenModel[Any], stored: int, options: LoadOptions) -> None:
    """Refuse a new head that is larger than all that is stored, unless the caller asked for its size."""
    new = sum(math.prod(opened.model.get_parameter(name).shape) for name in opened.match.new)
    if new > max(stored, _SMALL_HEAD) and not options.changes.keys() & {"num_labels", "id2label"}:
        raise opened.supply.error(
            f"the config states a new head of {new} weights, but only {stored} are stored: set num_labels="
        )


def initialize_new(model: Model, names: list[str]) -> None:
    """Initialize the parameters of a head for which there are no tensors, and log their names.

    Other parameters of the same layers keep their values.
    """
    if not names:
        return
    _logger.warning(
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
