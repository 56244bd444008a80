"""From a Hugging Face checkpoint to a model: every tensor finds its parameter, one by one."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TypeVar

import torch
from torch import nn
from tqdm import tqdm  # type: ignore[import-untyped]

from torchgguf.generation import GenerationConfig, GenerationMixin
from torchgguf.models.core.config import Config, floating_dtype
from torchgguf.models.core.model import Model
from torchgguf.models.core.provenance import Origin
from torchgguf.models.io.checkpoint import GENERATION_CONFIG, Checkpoint, CheckpointError, CheckpointTensor
from torchgguf.models.io.checkpoint_matching import Source, match
from torchgguf.models.io.loading import initialize_new
from torchgguf.models.io.options import LoadOptions
from torchgguf.nn import check_attention

AnyModel = TypeVar("AnyModel", bound=Model)


def open_checkpoint(
    model_class: type[AnyModel],
    checkpoint: Checkpoint,
    config: Config,
    options: LoadOptions,
    *,
    passing: bool = False,
) -> tuple[AnyModel, dict[str, Source], list[str]]:
    """Build a model without weights, its parameters on the meta device, and find what fills them.

    Args:
        model_class: what to build.
        checkpoint: where its weights are.
        config: its config; the dtype and the class are stated in it.
        options: those of `from_pretrained` that concern the model, not its weights.
        passing: each source is loaded and let go of before the next, and none stays in memory; the head must
            be there, and nothing else.

    Returns:
        The model; the sources by the parameters' names; the names of parameters that have none.

    Raises:
        CheckpointError: the checkpoint is broken, or does not fit the model.
    """
    check_attention(options.attn_implementation or "sdpa")
    tensors = checkpoint.tensors(pickles=not options.use_safetensors, passing=passing)
    if (layers := getattr(config, "num_hidden_layers", 0)) > len(tensors):
        raise CheckpointError(
            f"{checkpoint}: num_hidden_layers={layers}, but there are {len(tensors)} tensors"
        )
    weights = sum(math.prod(tensor.shape) for tensor in tensors.values())
    for name in model_class.architecture.sizes:
        if (size := getattr(config, name) or 0) > weights:
            raise CheckpointError(f"{checkpoint}: {name}={size}, but there are {weights} weights in all")
    claimed = passing or model_class.__name__ in (config.architectures or ())
    asked = None if options.dtype == "auto" else options.dtype
    config.dtype = floating_dtype(asked or config.dtype or _first_dtype(tensors))
    config.architectures = [model_class.__name__]
    try:
        with torch.device("meta"):  # no memory, no initialisation: everything comes from the files
            model = model_class(config, options.attn_implementation)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch adds where in its own code it is
        raise CheckpointError(f"{checkpoint}: the config describes no model that can be: {reason}") from None
    return model, *match(model, tensors, claimed, options.ignore_mismatched_sizes)


def load_checkpoint(
    model_class: type[AnyModel], checkpoint: Checkpoint, config: Config, options: LoadOptions
) -> AnyModel:
    """Build a model from a checkpoint; what there is to say is said of `PreTrainedModel.from_pretrained`.

    Memory: what the model takes, and one layer twice; nothing for weights that have the dtype of the model,
    which stay in the mapped files.
    """
    model, sources, new = open_checkpoint(model_class, checkpoint, config, options)
    device = options.device
    # The bar shows itself only where there is something to wait for, and someone to see it.
    names = tqdm(list(sources), "loading", unit="tensor", delay=1, leave=False, disable=None)
    for path, layer_names in groupby(names, key=lambda name: name.rpartition(".")[0]):
        layer = model.get_submodule(path)
        for name in layer_names:
            value = sources.pop(name).load().to(device, config.dtype)
            setattr(layer, name.rpartition(".")[2], nn.Parameter(value))
        if options.quantization_config is not None:
            model.set_submodule(path, options.quantization_config.pack(model, path, layer))
    initialize_new(model, new)
    model.tie_weights()
    model.origin = Origin(checkpoint.folder, checkpoint.name)
    if isinstance(model, GenerationMixin):
        model.generation_config = options.generation_config or _generation_config(checkpoint, config)
    return model.eval()


def _generation_config(checkpoint: Checkpoint, config: Config) -> GenerationConfig:
    """Read how to generate: from its own file or, where there is none, from the config."""
    if (values := checkpoint.extra(GENERATION_CONFIG)) is None:
        return GenerationConfig.from_model_config(config)
    return GenerationConfig.from_dict(values)


def _first_dtype(tensors: dict[str, CheckpointTensor]) -> torch.dtype | None:
    return next((tensor.dtype for tensor in tensors.values() if tensor.dtype.is_floating_point), None)
