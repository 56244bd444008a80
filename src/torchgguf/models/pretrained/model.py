"""`PreTrainedModel`: what all models have, whatever their architecture."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import floating_dtype
from torchgguf.models.core.model import Model, head_sharing
from torchgguf.models.io import gguf_writing
from torchgguf.models.io.assembling import load_pretrained
from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.models.io.checkpoint_writing import save_checkpoint
from torchgguf.models.io.options import remaining
from torchgguf.models.pretrained import resizing
from torchgguf.nn import PackedLayer
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


class PreTrainedModel(Model):
    """Base of all models: loading, saving, unpacking."""

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

        def this(found: Architecture) -> type[Self]:
            if cls.architecture is not found:
                kind = f"model_type {found.config_class.model_type!r} (in GGUF files: {found.gguf!r})"
                fitting = (found.classes.get(cls.task or "") or found.classes["causal_lm"]).__name__
                raise CheckpointError(f"{cls.__name__} cannot read a model of {kind}: {fitting} can")
            return cls

        model: Self = load_pretrained(this, pretrained_model_name_or_path, gguf_file, options)
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
        progress: gguf_writing.Progress | None = None,
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
        self.require_weights("save_gguf()")
        if quantization is None and (imatrix is not None or report is not None):
            raise ValueError("imatrix and report are for packing: say to what, such as quantization='Q4_K_M'")
        packing = None if quantization is None else Quantization.of(quantization, imatrix)
        gguf_writing.save_gguf(self, path, tokenizer, metadata or {}, packing, report, progress)

    def dequantize(self, dtype: torch.dtype | None = None) -> Self:
        """Unpack all weights, in place, to plain trainable parameters.

        Args:
            dtype: of all parameters and of the activations; by default that of the activations so far.

        Raises:
            ValueError: some weights are on the disk.
        """
        self.require_weights("dequantize()")
        dtype, tied = dtype or self.dtype, self.tied_head
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, PackedLayer) and child is not tied:
                    setattr(parent, name, child.dequantize(dtype))
        if tied is not None:
            self.set_output_embeddings(head_sharing(self.get_input_embeddings()))
        return self.to(dtype)

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
