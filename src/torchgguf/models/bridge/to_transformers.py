"""Build the model of transformers that shares all layers and weights of a model here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchgguf.models.bridge.from_transformers import SOURCE, Source, from_transformers
from torchgguf.models.core.model import Model
from torchgguf.nn import Gate, PackedLayer

# Buffers that are single numbers, in modules with weights of their own: those of Gemma 3n, given the size of
# its stream.
_NUMBERS: dict[str, Callable[[int], float]] = {
    "router_input_scale": lambda size: size**-1.0,
    "per_layer_projection_scale": lambda size: size**-0.5,
    "per_layer_input_scale": lambda size: 2**-0.5,
}


def _multipliers(config: Any) -> Tensor:
    """Return the factors on what Falcon-H1's mixers project, `(1, 1, channels)`."""
    from transformers.models.falcon_h1 import modeling_falcon_h1

    untyped: Any = modeling_falcon_h1
    factors: Tensor = untyped.compute_mup_vector(config)
    return factors


def _causal(config: Any) -> Tensor:
    """Return which positions a query sees in a StarCoder, bool `(positions, positions)`."""
    return torch.ones(config.n_positions, config.n_positions, dtype=torch.bool).tril()


# Other buffers in modules with weights of their own, given the config.
_OF_CONFIGS: dict[str, Callable[[Any], Tensor]] = {"mup_vector": _multipliers, "bias": _causal}


def to_transformers(model: Model) -> Any:
    """Convert a model; errors are those of `PreTrainedModel.to_transformers`."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError("to_transformers() needs transformers: pip install transformers") from error
    model.require_weights("to_transformers()")
    if len({parameter.device for parameter in model.parameters()}) > 1:
        raise ValueError("to_transformers() needs all weights on one device: load without device_map")
    layers = list(model.modules())
    is_packed = any(isinstance(layer, PackedLayer) for layer in layers)
    if is_packed and any(getattr(layer, "must_be_plain", False) for layer in layers):
        raise ValueError(
            "to_transformers() needs plain weights in this model, which transformers does not multiply by "
            "layers alone: call model.dequantize() first"
        )
    their_class = getattr(transformers, _class_name(model), None)
    if their_class is None or model.config.model_type not in transformers.CONFIG_MAPPING:
        raise ValueError(f"to_transformers() needs a class that transformers has, got {_class_name(model)}")
    config = transformers.AutoConfig.for_model(**model.config.to_dict())
    config.architectures = [_class_name(model)]
    dtype = config.dtype = model.dtype
    attention = getattr(model.base_model, "attn_implementation", None)
    if attention == "sdpa" and not their_class._supports_sdpa:  # Bloom's biases
        attention = "eager"
    with torch.device("meta"):  # no memory, no initialization: all values come from the model
        theirs = their_class._from_config(config, attn_implementation=attention, dtype=dtype)
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLayer) or next(layer.parameters(recurse=False), None) is not None:
            _share(theirs, path, layer, dtype)
    _compute_buffers(theirs, model.device)
    if (generation_config := getattr(model, "generation_config", None)) is not None:
        theirs.generation_config = transformers.GenerationConfig.from_dict(generation_config.to_dict())
    setattr(theirs, SOURCE, Source(model.gguf, model.origin, model.kept))
    if is_packed:
        # What transformers would write are blocks, which it does not load again.
        theirs.save_pretrained = partial(_save_unpacked, theirs)
    return theirs.train(model.training)


def _class_name(model: Model) -> str:
    """Return the name of the model's class, or of the base that transformers has too."""
    known = set(model.architecture.classes.values())
    names = [cls.__name__ for cls in type(model).__mro__ if cls in known]
    return names[0] if names else type(model).__name__


def _share(theirs: Any, path: str, layer: nn.Module, dtype: torch.dtype) -> None:
    """Put a layer in the place of transformers' own, or its parameters into that, if it computes the same."""
    place = theirs.get_submodule(path)
    plain = all(parameter.dtype is dtype for parameter in layer.parameters(recurse=False))
    is_whole = next(layer.children(), None) is None  # not a mixer, whose layers are shared one by one
    if isinstance(layer, PackedLayer) or not (plain or isinstance(layer, Gate) or not is_whole):
        theirs.set_submodule(path, layer)
        return
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(place, name, parameter)
    if isinstance(layer, Gate) and not plain:
        place.forward = partial(_in_dtype_of_weight, place)


def _in_dtype_of_weight(gate: Any, x: Tensor) -> Any:
    """Compute a gate: beside packed experts its weights are float32, and activations may be narrower."""
    output = type(gate).forward(gate, x.to(gate.weight.dtype))
    if isinstance(output, Tensor):
        return output.to(x.dtype)
    return tuple(each.to(x.dtype) if each.is_floating_point() else each for each in output)


def _compute_buffers(theirs: Any, device: torch.device) -> None:
    """Compute the buffers that transformers derives from the config: they are in no checkpoint."""
    for path, module in list(theirs.named_modules()):
        empty = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if not empty:
            continue
        if _OF_CONFIGS.keys() >= {*empty}:
            for name in empty:
                value = _OF_CONFIGS[name](theirs.config).to(device)
                setattr(module, name, nn.Buffer(value, persistent=False))
            continue
        if _NUMBERS.keys() >= {*empty}:
            for name in empty:
                number = torch.tensor(_NUMBERS[name](module.config.hidden_size), device=device)
                setattr(module, name, nn.Buffer(number, persistent=False))
            continue
        if (scale := getattr(module, "scalar_embed_scale", None)) is not None:  # of Gemma's embeddings
            module.embed_scale = nn.Buffer(torch.tensor(scale, device=device), persistent=False)
        elif (config := getattr(module, "config", None)) is not None:
            theirs.set_submodule(path, type(module)(config).to(device))
        else:  # the weights of norms that have none
            for name, buffer in list(module.named_buffers(recurse=False)):
                ones = torch.ones(buffer.shape, dtype=buffer.dtype, device=device)
                setattr(module, name, nn.Buffer(ones, persistent=False))


def _save_unpacked(theirs: Any, save_directory: Any, **options: Any) -> None:
    from_transformers(theirs).save_pretrained(save_directory, **options)
