"""`PreTrainedModel`: what all models have, whatever their architecture."""

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from torchgguf.models import loading, resizing, saving
from torchgguf.models.architecture import Architecture
from torchgguf.models.checkpoint import CheckpointError
from torchgguf.models.checkpoint_saving import save_checkpoint
from torchgguf.models.config import floating_dtype
from torchgguf.models.description import Origin
from torchgguf.models.options import remaining
from torchgguf.models.recompute import GradientCheckpointing
from torchgguf.nn import PackedLayer, QuantizedEmbedding, accept_second_names
from torchgguf.nn.slots import slots
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization

# Options of transformers' save_pretrained that are not here, with the values that ask for nothing.
_SAVING: dict[str, tuple[Any, ...]] = {
    "distributed_checkpoint": (False,),
    "is_main_process": (True,),
    "push_to_hub": (False,),
    "safe_serialization": (True,),
    "save_original_format": (True,),
    "save_peft_format": (True,),
    "state_dict": (None,),
    "token": (None,),
    "variant": (None,),
}


class PreTrainedModel(GradientCheckpointing):
    """Base of all models: loading, saving, unpacking, tying.

    Attributes:
        architecture: the tables by which GGUF files are read and written.
        base_model_prefix: the attribute under which a model with a head holds the model without.
        gguf: what to know of the file this was loaded from, to write it again; None if there is none.
        origin: the Hugging Face checkpoint this was loaded from; None if there is none.
    """

    architecture: ClassVar[Architecture]
    base_model_prefix: ClassVar[str] = "model"
    gguf: saving.GGUFSource | None = None
    origin: Origin | None = None

    def __init_subclass__(cls) -> None:
        """Let the class's `forward` accept second names of its arguments: `past_key_values` for `cache`."""
        super().__init_subclass__()
        if "forward" in vars(cls):
            cls.forward = accept_second_names(cls.forward)

    def __init__(self, config: Any, attn_implementation: str | None = None) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> Self:
        """Load from a Hugging Face checkpoint or from a GGUF file.

        A checkpoint is a config.json and, beside it, model.safetensors or pytorch_model.bin, each perhaps in
        several files. Of the latter nothing but tensors is read, whatever else is in it. A checkpoint of
        another class of the same architecture will do: heads that it lacks are new, and a warning names them;
        others are left out.

        Args:
            pretrained_model_name_or_path: a directory, or a repository of the Hugging Face Hub, that holds a
                checkpoint or `gguf_file`; or a GGUF file; or the file with the weights of a checkpoint.
            gguf_file: name of the GGUF file in there; of a split model, any of its files.
            options: as follows, by name.
            config: of the checkpoint, in place of its config.json: a config, or where to read it.
            dequantize: unpack all weights of a GGUF file to plain parameters of `dtype`; otherwise they stay
                in their blocks, mapped from the file, and only norms and biases are parameters to train.
            dtype: of the activations, and of plain weights: a torch dtype, or its name such as `"bfloat16"`.
                By default (`"auto"`, as in transformers since 5) what the config says, or what the
                checkpoint's first weight has; for a GGUF file float32. `torch_dtype` is its older name.
            attn_implementation: `"sdpa"`, torch's fused kernels and the default, `"eager"`, which can show
                probabilities, or another name in `torchgguf.nn.ATTENTION`.
            device_map: where to: one device (`"cpu"`, `"cuda:0"`, `0`, a `torch.device`), or devices by the
                names of modules (`{"model.embed_tokens": "cpu", "": 0}`), `"disk"` among them, or how to fill
                all there are: `"auto"`, `"balanced"`, `"balanced_low_0"`, `"sequential"`. All but one device
                needs accelerate. None leaves the model on the CPU.
            max_memory: how much of each device such a strategy may fill: `{0: "10GB", "cpu": "30GB"}`.
            offload_folder: where to keep what is left on the disk.
            quantization_config: how to pack the weights of a checkpoint as they are read.
            generation_config: in place of the one that comes with the model.
            ignore_mismatched_sizes: make a new head where the checkpoint's has another size.
            use_safetensors: True: take no pytorch_model.bin.
            revision, token, cache_dir, local_files_only, force_download: as in `torchgguf.hub.HubOptions`.
            Any other name is a field of the config, to be set to this value: `num_labels=3`.

        Raises:
            CheckpointError: the checkpoint is broken, or of an unknown kind, or does not fit the model; the
                message says which tensors or fields are in the way.
            GGUFError: so is the GGUF file.
            FileNotFoundError: a file is missing.
            PermissionError, ConnectionError: the Hub refuses, or cannot be reached.
            TypeError: an option is unknown.
            ValueError: an option's value is not supported.
            ImportError: a device map needs accelerate.
        """
        from torchgguf.models import auto  # which knows all classes, this one's heirs

        def this(family: auto.Family) -> type[Self]:
            if cls.architecture is not family.architecture:
                kind = f"model_type {family.model_type!r} (in GGUF files: {family.architecture.gguf!r})"
                fitting = auto.counterpart(cls, family).__name__
                raise CheckpointError(f"{cls.__name__} cannot read a model of {kind}: {fitting} can")
            return cls

        model: Self = auto.load_pretrained(this, pretrained_model_name_or_path, gguf_file, options)
        return model

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        max_shard_size: int | str = "50GB",
        *,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> None:
        """Write a Hugging Face checkpoint, which transformers and vLLM read: config.json, model.safetensors.

        Packed weights are unpacked one layer at a time, so little memory is needed for a large model; what
        was in the folder is replaced only once all is written. Weights that two layers share are there once.

        Args:
            save_directory: the folder, which is made if need be. It may be the one that the model came from.
            max_shard_size: bytes, or a text such as `"5GB"`, above which weights go to several files.
            dtype: of the weights: by default what they have or, if any are packed, that of the activations.
            options: those of transformers that ask for nothing else, such as `safe_serialization=True`.

        Raises:
            TypeError: an option is unknown.
            ValueError: an option's value is not supported.
        """
        if unknown := remaining(options, _SAVING):
            raise TypeError(f"save_pretrained() has no option {min(unknown)!r}")
        asked = None if dtype is None else floating_dtype(dtype)
        save_checkpoint(self, Path(save_directory), max_shard_size, asked)

    def save_gguf(
        self,
        path: str | PathLike[str],
        tokenizer: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        quantization: str | Quantization | None = None,
        imatrix: str | PathLike[str] | ImportanceMatrix | None = None,
        report: PackingReport | None = None,
        progress: saving.Progress | None = None,
    ) -> None:
        """Write a GGUF file; the old one, if any, is replaced only once the new one is whole.

        Every tensor keeps the type it has: packed ones their blocks, plain matrices the type of their dtype.
        What came from a GGUF file and was not changed is written as it was, metadata included. With
        `quantization` each becomes what llama-quantize would make of it, and those of that type are copied.

        Args:
            path: where to; it may be the file this model was loaded from.
            tokenizer: its metadata replace those of the file this was loaded from. A model that came from no
                file needs one to be of use.
            metadata: further keys to set, over all others.
            quantization: what to pack to: one of llama-quantize's file types, such as `"Q4_K_M"`, another
                type such as `"NVFP4"` for all matrices, or a `torchgguf.packing.Quantization`, which has more
                to choose from.
            imatrix: which weights matter most, as `torchgguf imatrix` or llama-imatrix wrote it; for
                `quantization` only, as is `report`.
            report: is filled with what became what, and with how much was lost. Without it, the log says
                where the length of rows forced another type than `quantization` asks for.
            progress: told `(done, total)` bytes as they are written.

        Raises:
            ValueError: the config says what GGUF cannot, this is no whole model, there is no such
                `quantization`, or a tensor cannot be packed to it: its weights are no finite numbers, it is
                packed to another type already, or its importances are missing or those of another model. The
                message names it.
            GGUFError: the importance matrix is none, or the disk is full.
        """
        self._require_weights("save_gguf()")
        if quantization is None and (imatrix is not None or report is not None):
            raise ValueError("imatrix and report are for packing: say to what, such as quantization='Q4_K_M'")
        packing = None if quantization is None else Quantization.of(quantization, imatrix)
        saving.save_gguf(self, path, tokenizer, metadata or {}, packing, report, progress)

    def dequantize(self, dtype: torch.dtype | None = None) -> Self:
        """Unpack all weights, in place, to plain trainable parameters.

        Args:
            dtype: of all parameters and of the activations; by default that of the activations so far.

        Raises:
            ValueError: some weights are on the disk.
        """
        self._require_weights("dequantize()")
        dtype, tied = dtype or self.dtype, self.tied_head
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, PackedLayer) and child is not tied:
                    setattr(parent, name, child.dequantize(dtype))
        if tied is not None:
            self.set_output_embeddings(loading.head_sharing(self.get_input_embeddings()))
        return self.to(dtype)

    def tie_weights(self) -> None:
        """Let the head use the weights of the embedding, if the config says so."""
        if self.config.tie_word_embeddings and self.get_output_embeddings() is not None:
            self.set_output_embeddings(loading.head_sharing(self.get_input_embeddings()))

    def post_init(self) -> None:
        """Initialise the weights that are this model's own, not those of a model inside it."""
        for child in self.children():
            if not isinstance(child, PreTrainedModel):
                child.apply(self.init_weights)
        self.tie_weights()

    def init_weights(self, module: nn.Module) -> None:
        """Give a layer of a new model its first values."""
        if isinstance(module, nn.Linear | nn.Embedding) and not module.weight.is_meta:
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])

    @property
    def base_model(self) -> "PreTrainedModel":
        """The model without its head: itself if it has none."""
        base: PreTrainedModel = getattr(self, self.base_model_prefix, self)
        return base

    def checkpoint_name(self, name: str) -> str:
        """Return what a parameter of this model is called in the checkpoint of a whole model."""
        prefix = self.architecture.hf_prefix
        if self.base_model is self:
            return prefix + name
        own = f"{self.base_model_prefix}."
        return prefix + name.removeprefix(own) if name.startswith(own) else name

    def own_name(self, name: str) -> str:
        """Return what this model calls a parameter, given its name in the checkpoint of a whole model."""
        prefix = self.architecture.hf_prefix
        own = "" if self.base_model is self else f"{self.base_model_prefix}."
        return own + name.removeprefix(prefix) if name.startswith(prefix) else name

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
        """Return the module that scores tokens, or None if this model has no head."""
        return None

    def set_output_embeddings(self, module: nn.Module) -> None:
        """Replace the module that scores tokens."""
        raise NotImplementedError

    @property
    def tied_head(self) -> nn.Module | None:
        """The module that scores tokens, if it has the weights of the one that looks them up."""
        head = self.get_output_embeddings()
        return head if head is not None and head.weight is self.get_input_embeddings().weight else None

    def _require_weights(self, caller: str) -> None:
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(f"{caller} needs all weights at hand: load without device_map, or on one device")

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Module:
        """Change the size of the vocabulary; new tokens start as the mean of the old ones.

        Args:
            new_num_tokens: the new size; by default it stays as it is.
            pad_to_multiple_of: what to round it up to a multiple of.

        Returns:
            The module that looks up tokens.

        Raises:
            ValueError: the size is less than 1, or the rows are packed: `dequantize` first.
        """
        return resizing.resize_vocabulary(self, new_num_tokens, pad_to_multiple_of)

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the weights, packed ones too; those that several layers share count once.

        Args:
            only_trainable: leave out what takes no gradient, as packed weights do.
            exclude_embeddings: leave out tables of tokens and of positions.
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
        """Where the parameters are or, if accelerate has spread them, where inputs go."""
        place = getattr(getattr(self, "_hf_hook", None), "execution_device", None)
        return next(self.parameters()).device if place is None else torch.device(place)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the activations."""
        embedding = self.get_input_embeddings()
        if isinstance(embedding, QuantizedEmbedding):
            return embedding.dtype
        return next(embedding.parameters()).dtype
