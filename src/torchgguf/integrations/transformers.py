"""`GGUFQuantizationConfig` for transformers' own models: their matrices are packed while a checkpoint loads.

A model is loaded with empty packed layers in the place of its linear ones, and each matrix is packed as it
arrives. Saved checkpoints contain the blocks, and their config.json the type of each layer.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, field
from typing import Any

import gguf
import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from torchgguf.container.errors import brief
from torchgguf.models.quantizers.gguf import GGUFQuantizationConfig
from torchgguf.nn import PackedLayer, QuantizedConv1D, QuantizedEmbedding, QuantizedLinear
from torchgguf.nn.unpacking import packed_layers, unpack_layers
from torchgguf.packing import Quantization, pack_tensor, stays_wide
from torchgguf.packing.planning import Choice
from torchgguf.quants import QuantType, quant_type

_logger = logging.getLogger(__name__)
# Recipes are those of an architecture that they do not tell apart from others.
_ANY = "any"

METHOD = GGUFQuantizationConfig.quant_method


def register_method() -> None:
    """Register the method with transformers, under the name that config.json has."""
    register_quantization_config(METHOD)(StatedConfig)
    register_quantizer(METHOD)(GGUFQuantizer)


@dataclass
class StatedConfig(GGUFQuantizationConfig, QuantizationConfigMixin):  # type: ignore[misc]
    """The config as in config.json of a packed checkpoint.

    Attributes:
        types: names of the packed layers with their types.
    """

    types: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, config_dict: Any, return_unused_kwargs: bool = False, **options: Any) -> Any:
        """Read the fields, as `to_dict` writes them."""
        known = {name: value for name, value in config_dict.items() if name != "quant_method"}
        config = cls(**known)
        return (config, options) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in config.json."""
        return {**super().to_dict(), "types": self.types}


class GGUFQuantizer(HfQuantizer):
    """Packs the linear layers and the embedding of a model of transformers."""

    def __init__(self, quantization_config: Any, **options: Any) -> None:
        if not isinstance(quantization_config, StatedConfig):
            asked: GGUFQuantizationConfig = quantization_config
            stated: Any = StatedConfig  # transformers' base declares a field that is a constant of ours
            quantization_config = stated(asked.quantization, asked.modules_to_not_convert)
        super().__init__(quantization_config, **options)
        self.choices: dict[str, tuple[str, Choice]] = {}  # names in files and types, by names of layers

    def param_needs_quantization(self, model: Any, param_name: str, **options: Any) -> bool:
        """Return whether a parameter of a checkpoint is to be packed."""
        path, _, name = param_name.rpartition(".")
        return name == "weight" and path in self.choices

    def get_quantize_ops(self) -> ConversionOps:
        """Return the operation that packs a matrix."""
        return _Pack(self)

    def is_serializable(self) -> bool:
        """Return whether packed models are saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether adapters are trained beside the packed layers."""
        return True

    def _process_model_before_weight_loading(self, model: Any, **options: Any) -> None:
        config: Any = self.quantization_config
        if self.pre_quantized:
            types = {path: quant_type(name) for path, name in config.types.items()}
        else:
            kept = self.get_modules_to_not_convert(
                model, config.modules_to_not_convert or [], model._keep_in_fp32_modules
            )
            self.choices = _plan(model, config, kept)
            types = {path: choice.type for path, (_, choice) in self.choices.items()}
            config.types = {path: kind.name for path, kind in types.items()}
        layers = dict(model.named_modules())
        for path, kind in types.items():
            if path not in layers:
                raise ValueError(f"config.json states a type of {brief(path)}, which the model has not")
            model.set_submodule(path, _empty(layers[path], kind, model.dtype))

    def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
        model.tie_weights()
        for layer in model.modules():
            if isinstance(layer, PackedLayer):
                layer.weight.requires_grad_(False)
        return model

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        unpack_layers(model, packed_layers(model), dtype or model.dtype)
        return model


class _Pack(ConversionOps):
    """Packs one matrix, given its name in the model."""

    def __init__(self, quantizer: GGUFQuantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], *patterns: Any, **options: Any) -> Any:
        ((key, value),) = input_dict.items()
        weights: Tensor = value[0] if isinstance(value, list) else value
        path = key.rpartition(".")[0]
        name, choice = self.quantizer.choices[path]
        if isinstance(options["model"].get_submodule(path), QuantizedConv1D):
            weights = weights.t().contiguous()
        asked: Any = self.quantizer.quantization_config
        return {key: pack_tensor(name, weights, choice, _quantization(asked))}


def _quantization(config: GGUFQuantizationConfig) -> Quantization:
    """Return the options of packing; a type packs all matrices to itself."""
    asked = config.quantization
    return asked if isinstance(asked, Quantization) else Quantization(asked, pure=config.is_one_type)


def _plan(model: Any, config: GGUFQuantizationConfig, kept: list[str]) -> dict[str, tuple[str, Choice]]:
    """Choose the types of matrices, as they are in a file of the model: a recipe counts them.

    Layers whose tensors have no name in GGUF files get the main type of the recipe.
    """
    text = model.config.get_text_config()
    count = text.num_hidden_layers
    names = gguf.get_tensor_name_map(_architecture(text.model_type), count)
    layers = {path: layer for path, layer in model.named_modules() if _is_packable(model, path, layer)}
    in_files = {}
    for path in layers:
        if any(path == name or path.endswith(f".{name}") for name in kept):
            continue
        found = names.get_name(path) or names.get_name(f"model.{path}") or path
        in_files[path] = f"{found}.weight"
    shapes = {in_files[path]: _shape(layers[path]) for path in in_files}
    metadata: dict[str, Any] = {"general.architecture": _ANY, f"{_ANY}.block_count": count}
    for key, attribute in {
        "head_count": "num_attention_heads",
        "head_count_kv": "num_key_value_heads",
    }.items():
        if (value := getattr(text, attribute, None)) is not None:
            metadata[f"{_ANY}.attention.{key}"] = value
    plan = _quantization(config).plan(metadata, shapes)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and text.tie_word_embeddings:  # one matrix of two layers has one type
        paths = {id(layer): path for path, layer in layers.items()}
        if id(head) in paths and (source := in_files.get(paths.get(id(embedding), ""))) in plan:
            in_files[paths[id(head)]] = source
        elif id(head) in paths:
            in_files.pop(paths[id(head)], None)
    return {
        path: (name, plan[name])
        for path, name in in_files.items()
        if name in plan and not stays_wide(name) and plan[name].type.dtype is None
    }


def _architecture(model_type: str) -> Any:
    """Return the architecture of GGUF files whose names of tensors apply; that of Llama has those of most."""
    known = {name.replace("-", "_"): architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
    return known.get(model_type.replace("_", ""), known.get(model_type, gguf.MODEL_ARCH.LLAMA))


def _is_packable(model: Any, path: str, layer: nn.Module) -> bool:
    """Return whether a layer has a packed form, and is only called, not read, by the module that holds it."""
    if layer is model.get_input_embeddings():
        return type(layer) is nn.Embedding
    if type(layer) not in (nn.Linear, Conv1D):
        return False
    parent, _, name = path.rpartition(".")
    try:
        source = inspect.getsource(type(model.get_submodule(parent)))
    except (OSError, TypeError):
        return True
    if f"self.{name}.weight" in source:
        _logger.warning("%s stays unpacked: its model reads the weights without the layer", path)
        return False
    return True


def _shape(layer: Any) -> tuple[int, ...]:
    shape = tuple(layer.weight.shape)
    return shape[::-1] if isinstance(layer, Conv1D) else shape


def _empty(layer: Any, kind: QuantType, dtype: torch.dtype) -> PackedLayer:
    """Return a packed layer on the meta device, with the bias of a plain one."""
    rows, columns = _shape(layer)
    with torch.device("meta"):
        if isinstance(layer, nn.Embedding):
            return QuantizedEmbedding(rows, columns, kind, dtype=dtype)
        form = QuantizedConv1D if isinstance(layer, Conv1D) else QuantizedLinear
        packed = form(columns, rows, kind)
    packed.bias = layer.bias
    return packed
