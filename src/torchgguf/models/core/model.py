"""`Model`: the names, embeddings and weights of a model of any architecture. It opens no file."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import nn

from torchgguf.container import LazyTensor
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.argument_order import in_order
from torchgguf.models.core.provenance import GGUFSource, Origin
from torchgguf.models.core.recompute import GradientCheckpointing
from torchgguf.nn import (
    CausalConv1d,
    Experts,
    LatentProjection,
    Linear,
    QuantizedEmbedding,
    QuantizedLinear,
    accept_second_names,
)
from torchgguf.nn.slots import slots


class Model(GradientCheckpointing):
    """The names, embeddings and weights of a model.

    Attributes:
        architecture: the tables for reading and writing GGUF files.
        task: the name of the class in `architecture.classes`, or None if it is not listed there.
        argument_order: names of the arguments that `forward` accepts by position, if they are not as it
            declares them.
        base_model_prefix: name of the attribute of a model with a head that contains the model without it.
        gguf: the GGUF file that the model came from, as far as saving needs it, or None.
        origin: the Hugging Face checkpoint that the model came from, or None.
        kept: tensors of the file that the model does not run, by their GGUF names: saving writes them again.
        added_biases: names of the biases that the file has beyond what the config states.
        pooling: how vectors of texts are made from the states of tokens, a name in `POOLING_NAMES`; or None
            if nothing states it.
        name_or_path: the argument of `from_pretrained`, or an empty text.
        further_tables: attributes of models without a head that hold further tables with a row for each
            token, as far as a model has them; each with the field of the config that counts the rows.
    """

    architecture: ClassVar[Architecture]
    task: ClassVar[str | None] = None
    argument_order: ClassVar[tuple[str, ...]] = ()
    base_model_prefix: ClassVar[str] = "model"
    gguf: GGUFSource | None = None
    origin: Origin | None = None
    pooling: str | None = None
    kept: Mapping[str, LazyTensor] = MappingProxyType({})
    added_biases: tuple[str, ...] = ()
    name_or_path: str = ""
    further_tables: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__()
        self.config = config

    def __init_subclass__(cls, architecture: Architecture | None = None, **options: Any) -> None:
        """Register the class with its architecture, and accept the arguments of transformers in its order.

        Args:
            architecture: of the class and of its subclasses; by default that of its base.
            options: of other bases.
        """
        super().__init_subclass__(**options)
        if architecture is not None:
            cls.architecture = architecture
        if hasattr(cls, "architecture"):
            cls.architecture.register(cls)
        if "forward" in vars(cls):  # an inherited one accepts them already
            cls.forward = accept_second_names(cls.forward)
        # A subclass that only overrides `forward` keeps the order in which it declares its arguments.
        if order := vars(cls).get("argument_order"):
            cls.forward = in_order(cls.forward, order)

    def tie_weights(self) -> None:
        """Share the weights of the embedding with the head, if the config asks for it."""
        if self.config.tie_word_embeddings and self.get_output_embeddings() is not None:
            self.set_output_embeddings(head_sharing(self.get_input_embeddings()))

    def post_init(self) -> None:
        """Initialize the weights of this model, except those of a model inside it."""
        # Without memory there is nothing to initialize, and torch imports its compiler for random numbers.
        if not any(parameter.is_meta for parameter in self.parameters()):
            for child in self.children():
                if not isinstance(child, Model):
                    child.apply(self.init_weights)
        self.tie_weights()

    def init_weights(self, module: nn.Module) -> None:
        """Initialize a layer of a new model."""
        if isinstance(module, nn.Linear | nn.Embedding | CausalConv1d):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, Experts | LatentProjection):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=self.config.initializer_range)

    @property
    def base_model(self) -> "Model":
        """The model without its head, or the model itself if there is no head."""
        base: Model = getattr(self, self.base_model_prefix, self)
        return base

    def base_name(self, name: str) -> str:
        """Return the name of a parameter in weight maps, given its name in this model."""
        return name if self.base_model is self else name.removeprefix(f"{self.base_model_prefix}.")

    def is_in_base(self, name: str) -> bool:
        """Return whether a parameter, by its name in this model, belongs to the model without the head."""
        return self.base_model is self or name.startswith(f"{self.base_model_prefix}.")

    def get_input_embeddings(self) -> nn.Module:
        """Return the module that looks up tokens."""
        if self.base_model is self:
            raise NotImplementedError
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, module: nn.Module) -> None:
        """Replace the module that looks up tokens."""
        old = self.get_input_embeddings()
        self.set_submodule(next(path for path, found in self.named_modules() if found is old), module)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the module that scores tokens, or None if there is none."""
        return None

    def set_output_embeddings(self, module: nn.Module) -> None:
        """Replace the module that scores tokens."""
        raise NotImplementedError

    @property
    def tied_head(self) -> nn.Module | None:
        """The module that scores tokens if it shares the weights of the embedding, or None."""
        head = self.get_output_embeddings()
        return head if head is not None and head.weight is self.get_input_embeddings().weight else None

    def require_weights(self, caller: str) -> None:
        """Check that no weights are on the disk.

        Raises:
            ValueError: some are; the message names `caller`.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(
                f"{caller} needs all weights in memory: load without device_map, or on one device"
            )

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the weights, packed ones too; those that several layers share count once.

        Args:
            only_trainable: skip weights without gradients, such as packed ones.
            exclude_embeddings: skip the tables of tokens and of positions.
        """
        total, seen = 0, set[nn.Parameter]()
        for layer in self.modules():
            own = {*layer.parameters(recurse=False)} - seen
            seen |= own
            if not own or (exclude_embeddings and isinstance(layer, nn.Embedding | QuantizedEmbedding)):
                continue
            if only_trainable:
                total += sum(parameter.numel() for parameter in own if parameter.requires_grad)
            else:
                total += sum(math.prod(slot.shape) for slot in slots(layer))
        return total

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of all parameters, and of buffers unless `return_buffers` is False."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def device(self) -> torch.device:
        """The device of the parameters or, if accelerate placed them on several, the device of inputs."""
        place = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return next(self.parameters()).device if place is None else torch.device(place)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the activations."""
        embedding = self.get_input_embeddings()
        if isinstance(embedding, QuantizedEmbedding):
            return embedding.dtype
        return next(embedding.parameters()).dtype


def head_sharing(embedding: nn.Module) -> nn.Module:
    """Return a head that shares the weights of an embedding."""
    if isinstance(embedding, QuantizedEmbedding):
        return QuantizedLinear.from_packed(embedding.weight, embedding.quant_type)
    assert isinstance(embedding, nn.Embedding)
    head = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False, device="meta")
    head.weight = embedding.weight
    return head
