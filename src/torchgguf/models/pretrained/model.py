"""`PreTrainedModel`: load, save, unpack and resize models of any architecture."""

from collections.abc import Iterable, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from torchgguf.compat import NeutralOptions, split_options
from torchgguf.container.writing.writer import ByteProgress
from torchgguf.models.bridge.to_transformers import to_transformers
from torchgguf.models.bridge.tokenizer import own_tokenizer
from torchgguf.models.core.architecture import Architecture
from torchgguf.models.core.config import floating_dtype
from torchgguf.models.core.model import head_sharing
from torchgguf.models.core.narrowing import narrow, warn_of_infinite
from torchgguf.models.io import gguf_writing
from torchgguf.models.io.assembling import load_pretrained
from torchgguf.models.io.checkpoint import CheckpointError
from torchgguf.models.io.checkpoint_writing import check_range, save_checkpoint
from torchgguf.models.pretrained import resizing
from torchgguf.models.pretrained.attributes import TransformersAttributes
from torchgguf.models.pretrained.packed_training import watch_training
from torchgguf.models.pretrained.state_dicts import completed, holding
from torchgguf.nn import PackedLayer
from torchgguf.nn.unpacking import packed_layers, unpack_layers
from torchgguf.packing import ImportanceMatrix, PackingReport, Quantization

# Options of transformers' save_pretrained that are unsupported here, with the values that change nothing.
_SAVING: NeutralOptions = {
    "distributed_checkpoint": (False,),
    "push_to_hub": (False,),
    "safe_serialization": (True,),
    "save_original_format": (True,),
    "save_peft_format": (True,),
    "variant": (None,),
}


# Options of transformers' save_pretrained for what is not done here, or not by a function of the caller.
_UNUSED = {"save_function", "token"}


class PreTrainedModel(TransformersAttributes):
    """Base of all models that load and save."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str], gguf_file: str | None = None, **options: Any
    ) -> Self:
        """Load a Hugging Face checkpoint or a GGUF file.

        A checkpoint is config.json and, in the same folder, model.safetensors or pytorch_model.bin, each
        perhaps in several files. Of a .bin file only tensors are read, whatever else it contains. The
        checkpoint may be of another class of the same architecture: heads that it lacks are new, and a
        warning names them; its other heads are ignored.

        Args:
            pretrained_model_name_or_path: a folder, or a repository of the Hugging Face Hub, with a
                checkpoint or `gguf_file`; or a GGUF file; or the file of a checkpoint's weights.
            gguf_file: name of the GGUF file in the folder; of a split model, any of its files.
            options: the following, by name.
            config: replaces config.json: a config, or a place to read it from.
            dequantize: unpack all weights of a GGUF file to plain parameters of `dtype`. By default they stay
                in their blocks, mapped from the file, and only norms and biases can be trained.
            dtype: of the activations and of plain weights: a torch dtype, or its name such as `"bfloat16"`.
                The default, `"auto"`, is the config's or that of the checkpoint's first weight, as in
                transformers since 5; for a GGUF file it is float32. `torch_dtype` is its older name.
            attn_implementation: `"sdpa"`, torch's fused kernels and the default; `"eager"`, which can return
                probabilities; or another name in `torchgguf.nn.ATTENTION_FUNCTIONS`.
            device_map: one device (`"cpu"`, `"cuda:0"`, `0`, a `torch.device`); or devices, or `"disk"`, by
                the names of modules (`{"model.embed_tokens": "cpu", "": 0}`); or a strategy that fills all
                devices: `"auto"`, `"balanced"`, `"balanced_low_0"`, `"sequential"`. More than one device
                needs accelerate. By default the model is on the CPU.
            max_memory: the largest part of each device that a strategy fills: `{0: "10GB", "cpu": "30GB"}`.
            offload_folder: a folder for weights on the disk.
            quantization_config: packs the weights of a checkpoint while it loads.
            generation_config: replaces the one that is stored with the model.
            ignore_mismatched_sizes: make a head new if the checkpoint's has another size.
            use_safetensors: True ignores pytorch_model.bin.
            mmap: False reads the weights of a GGUF file into memory instead of mapping the file, for files
                that may become shorter while the model is used; `disable_mmap=True` is the same. A mapped
                file must stay as long as it is, or the system ends the process.
            ignore_metadata: metadata keys of a GGUF file that are not read, such as `["llama.new_key"]`: a
                way past the error about unknown keys. The log names each, and saving writes it again.
            revision, token, cache_dir, local_files_only, force_download: as in `torchgguf.hub.HubOptions`.
            Any other name is a field of the config, which is set to the value: `num_labels=3`.

        Returns:
            The model, in evaluation mode.

        Raises:
            CheckpointError: the checkpoint is broken, unsupported, or does not match the model; the message
                names the tensors or fields.
            GGUFError: the same of a GGUF file.
            FileNotFoundError: a file is missing.
            PermissionError, ConnectionError: the Hub refuses access, or is unreachable.
            TypeError: an option is unknown.
            ValueError: the value of an option is unsupported.
            ImportError: a device map needs accelerate.
        """
        is_file = gguf_file is not None or str(pretrained_model_name_or_path).endswith(".gguf")

        def this(found: Architecture) -> type[Self]:
            # An encoder is read from checkpoints of the whole model, which have the same config.
            is_part = not is_file and cls.architecture.config_class is found.config_class
            if cls.architecture is not found and not is_part:
                kind = f"model_type {found.config_class.model_type!r} (in GGUF files: {found.gguf!r})"
                fitting = (found.classes.get(cls.task or "") or found.main_class).__name__
                raise CheckpointError(f"{cls.__name__} does not load models of {kind}: use {fitting}")
            return cls

        model: Self = load_pretrained(this, pretrained_model_name_or_path, gguf_file, options)
        return model

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        max_shard_size: int | str = "50GB",
        *,
        dtype: torch.dtype | str | None = None,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Save a Hugging Face checkpoint, config.json and model.safetensors, for transformers and vLLM.

        Packed weights are unpacked one layer at a time, so a large model needs little memory. Files in the
        folder are replaced when all is written. Weights that two layers share are saved once.

        Args:
            save_directory: the folder, which is created if it is missing. The model may come from it.
            max_shard_size: bytes, or a text such as `"5GB"`; larger weights are saved in several files.
            dtype: of the weights; by default their own or, if any are packed, that of the activations.
            is_main_process: False saves nothing: of several processes that train a model, one saves it.
            state_dict: parameters to save in place of the model's, such as those that accelerate gathers.
            options: those of transformers that change nothing here, such as `safe_serialization=True`, and
                `save_function`.

        Raises:
            TypeError: an option is unknown.
            ValueError: the value of an option is unsupported, another library packed the weights, the model
                or `state_dict` is not what the config describes, or finite weights are too large for `dtype`
                (the message names the tensor). Nothing is written.
        """
        (unknown,) = split_options({k: v for k, v in options.items() if k not in _UNUSED}, _SAVING)
        if unknown:
            raise TypeError(f"save_pretrained() has no option {min(unknown)!r}")
        asked = None if dtype is None else floating_dtype(dtype)
        if is_main_process:
            with holding(self, state_dict):
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
        progress: ByteProgress | None = None,
    ) -> None:
        """Save a GGUF file; it replaces an old one when it is complete.

        Every tensor keeps its type: packed ones their blocks, plain matrices the type of their dtype. What
        came from a GGUF file and did not change is written as it was, metadata included. With `quantization`
        each tensor gets the type that llama-quantize would choose, and those that are of it already are
        copied.

        Args:
            path: the file; the model may come from it.
            tokenizer: its metadata replace those of the file that the model came from. A model from no file
                needs one to be usable. It may be a tokenizer of transformers.
            metadata: further keys, which override all others.
            quantization: one of llama-quantize's file types, such as `"Q4_K_M"`; another type, such as
                `"NVFP4"`, for all matrices; or a `torchgguf.packing.Quantization`, which has more options.
            imatrix: importances of weights, written by `torchgguf imatrix` or llama-imatrix; for
                `quantization` only, as is `report`.
            report: is filled with the old and new types of tensors, and the errors. Without it, the log names
                tensors whose rows are too short for the type that `quantization` asks for.
            progress: is called with `(done, total)` bytes during writing.

        Raises:
            ValueError: GGUF cannot express the config, the model is not what it describes or has no head,
                `quantization` is unknown, or a tensor does not support it: its weights are not finite or too
                large, it is packed to another type already, or its importances are missing or of another
                model. The message names the tensor.
            GGUFError: the importance matrix is invalid, or the disk is full.
        """
        self.require_weights("save_gguf()")
        if quantization is None and (imatrix is not None or report is not None):
            raise ValueError("imatrix and report are for packing: set quantization=, such as 'Q4_K_M'")
        packing = None if quantization is None else Quantization.of(quantization, imatrix)
        gguf_writing.write_model(
            self, path, own_tokenizer(tokenizer), metadata or {}, packing, report, progress
        )

    def to_transformers(self) -> Any:
        """Return the same model as an object of transformers' own class, with the same layers and weights.

        Nothing is copied: packed layers stay packed, and a change to a weight of one model changes the other.
        The model works where transformers asks for its own classes: pipelines, `Trainer`, evaluation.
        `torchgguf.save_gguf` writes it. Its `save_pretrained` unpacks weights, as it does here.

        Raises:
            ImportError: transformers is not installed.
            ValueError: transformers has no such class; some weights are on the disk, or on another device
                than the rest; or they are packed, and transformers multiplies by some of them without a
                layer (Mamba).
        """
        return to_transformers(self)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:  # torch's own type is private
        """Load parameters, also as `save_pretrained` writes them: shared weights once, experts one by one."""
        is_tied = self.tied_head is not None
        result = super().load_state_dict(completed(self, state_dict, strict), strict, assign)
        if assign and is_tied:
            self.set_output_embeddings(head_sharing(self.get_input_embeddings()))
        return result

    @property
    def _keys_to_ignore_on_save(self) -> set[str] | None:
        """The names that files lack because other weights are the same; transformers' Trainer reads it."""
        tied = self.tied_head
        return {f"{path}.weight" for path, layer in self.named_modules() if layer is tied} or None

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training or of evaluation, as torch does.

        The first training step of a packed model warns that only vectors learn.
        """
        watch_training(self, mode)
        return super().train(mode)

    def dequantize(
        self, dtype: torch.dtype | None = None, modules: str | Iterable[str] | None = None
    ) -> Self:
        """Unpack weights, in place, to plain trainable parameters: all of them, or those of some modules.

        The log names weights that are too large for `dtype`.

        Args:
            dtype: of all parameters and of the activations; by default that of the activations.
            modules: the modules to unpack, such as `["layers.3", "layers.*.mlp", "lm_head"]`; by default all.
                Each is the name of a module or the last parts of it, with `*` for any text. A head that
                shares the weights of the embedding is unpacked with it.

        Returns:
            The model itself.

        Raises:
            ValueError: some weights are on the disk; there is no module of such a name; or `dtype` is not
                that of the activations although only some modules are unpacked.
        """
        self.require_weights("dequantize()")
        if modules is not None and dtype not in (None, self.dtype):
            raise ValueError(f"unpacked modules must be of the model's dtype, {self.dtype}, got {dtype}")
        dtype = dtype or self.dtype
        paths = packed_layers(self, modules)
        infinite: list[str] = []
        for name, weights in self.named_parameters() if dtype is torch.float16 else ():
            if weights.is_floating_point():
                narrow(weights.detach(), dtype, partial(infinite.append, name))

        def check(plain: nn.Module, packed: PackedLayer, path: str) -> None:
            check_range(plain, packed, path, lambda name, _: infinite.append(name))

        unpack_layers(self, paths, dtype, check)
        warn_of_infinite(infinite, dtype)
        return self.to(dtype) if modules is None else self

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Module:
        """Resize the vocabulary; new tokens start as the mean of the old ones.

        Args:
            new_num_tokens: the new size; by default the old one.
            pad_to_multiple_of: the size is rounded up to a multiple of this.

        Returns:
            The module that looks up tokens.

        Raises:
            ValueError: the size is less than 1, or the rows are packed: call `dequantize` first.
        """
        return resizing.resize_vocabulary(self, new_num_tokens, pad_to_multiple_of)
