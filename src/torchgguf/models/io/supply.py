"""Supply a model with config and tensors, from a GGUF file or from a Hugging Face checkpoint."""

from __future__ import annotations

import copy
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from torchgguf.container import GGUFError, GGUFFile, LazyTensor
from torchgguf.generation import GenerationConfig
from torchgguf.generation.gguf_settings import gguf_settings
from torchgguf.models.core.config import Config, floating_dtype
from torchgguf.models.core.model import Model
from torchgguf.models.core.pooling import stated_pooling
from torchgguf.models.core.provenance import GGUFSource, Origin
from torchgguf.models.core.usual_tensors import EMBEDDING
from torchgguf.models.core.weight_map import HEAD, Stack
from torchgguf.models.io.biases import add_biases
from torchgguf.models.io.checkpoint import GENERATION_CONFIG, Checkpoint, CheckpointError
from torchgguf.models.io.kept import kept_of_checkpoint
from torchgguf.models.io.mxfp4 import separate_matrices
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.places import CHECKPOINT_LAYOUT, GGUF_LAYOUT, PACKED_EXPERTS_LAYOUT, Layout
from torchgguf.models.io.sentence_transformers import read_pooling

# Ends of the names of masks, frequencies and positions that older versions of transformers saved. They follow
# from the config, and nothing reads them.
_DEAD = re.compile(r"(^|\.)(attn\.bias|masked_bias|rotary_emb\.inv_freq|causal_mask|position_ids)$")
# Beginning of the names of the text part in checkpoints of models that also read images.
_TEXT_PART = "model.language_model."
# Ends of names that older versions of transformers saved.
_OLDER = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class TensorSupply(ABC):
    """The config and the tensors of one model, none of them loaded yet.

    Attributes:
        layout: how the tensors are stored in layers.
        keeps_blocks: whether matrices stay as they are stored, unless options ask for plain ones.
        config: of the model, with the changes in the options.
        tensors: by the names of weight maps. Matching removes those that it finds a parameter for.
        heads: names of the tensors that belong to a head.
        unknown: names of tensors that are not in the weight map, as the file states them.
        stacks: parameters that may be stored in parts.
        kept: tensors of layers that models do not run, by their GGUF names.
    """

    layout: Layout
    keeps_blocks: ClassVar[bool]
    config: Config
    tensors: dict[str, LazyTensor]
    heads: set[str]
    unknown: list[str]
    stacks: Sequence[Stack] = ()
    kept: Mapping[str, LazyTensor] = MappingProxyType({})

    @abstractmethod
    def separate(self, model: Model) -> None:
        """Separate the tensors of heads from all others, by the names of the model's parameters."""

    @abstractmethod
    def error(self, reason: str) -> Exception:
        """Return an error that names the file or the checkpoint, and the reason."""

    @abstractmethod
    def shown(self, name: str, in_base: bool) -> str:
        """Return the name of a tensor in the file.

        Args:
            name: its name in weight maps.
            in_base: whether it belongs to the model without a head.
        """

    @abstractmethod
    def may_lack(self, name: str) -> bool:
        """Return whether a parameter of a head, by its name in weight maps, is new if there is no tensor."""

    @abstractmethod
    def may_ignore(self, name: str, model: Model) -> bool:
        """Return whether a tensor, by its name in weight maps, is ignored if there is no parameter."""

    @abstractmethod
    def generation_config(self) -> GenerationConfig | None:
        """Read the generation config, or return None if nothing is stated."""

    @abstractmethod
    def describe(self, model: Model) -> None:
        """Store in a model where it comes from."""


class GGUFSupply(TensorSupply):
    """The config and the tensors of a GGUF file.

    Args:
        model_class: the class to load.
        file: must stay open until the tensors are loaded.
        options: of `from_pretrained`.
        passing: whether each tensor leaves memory when the next one is loaded.

    Raises:
        GGUFError: the metadata are invalid.
        ValueError: an option is for checkpoints only.
    """

    layout = GGUF_LAYOUT
    keeps_blocks = True

    def __init__(
        self, model_class: type[Model], file: GGUFFile, options: LoadOptions, *, passing: bool = False
    ) -> None:
        options.without_checkpoint()
        architecture = model_class.architecture
        config = architecture.read_config(file, options.ignore_metadata)
        self._file, self._weights, self._classifier = file, architecture.weights, architecture.classifier
        tensors = architecture.tensors_of(file)
        self._source = GGUFSource.of(
            file.metadata, tensors, copy.deepcopy(config), architecture.config_tensors
        )
        if options.changes:
            config = config.from_dict(config.to_dict(), **options.changes)
        config.dtype = floating_dtype(options.dtype)
        self.config, self.tensors, self.heads = config, {}, set()
        self.unknown = unknown = list[str]()
        self.kept = kept = dict[str, LazyTensor]()
        if (copied := tensors.copy_of_embedding) and not torch.equal(file[copied], file[EMBEDDING]):
            unknown.append(copied)
        for name, tensor in tensors.sources(passing).items():
            hf_name, row = self._weights.to_hf(name, config) or ("", None)
            if name in architecture.config_tensors:
                continue
            known = row is not None or architecture.is_unread(name)
            if known and architecture.is_kept(name, self._source.config):
                kept[name] = (
                    tensor if passing else replace(tensor, load=partial(_same, tensors.load(name)), read=None)
                )
                continue
            if row is None or hf_name in self.tensors:
                unknown.append(name)
                continue
            if (transform := row.transform) is not None:
                load = partial(_transformed, transform.to_hf, tensor.load, config)
                tensor = replace(tensor, load=load, read=None)
            self.tensors[hf_name] = tensor
            if row.hf == HEAD or row.hf in architecture.classifier:
                self.heads.add(hf_name)

    def separate(self, model: Model) -> None:
        """Do nothing: the weight map has separated them."""

    def error(self, reason: str) -> GGUFError:
        """Return a `GGUFError`, as in `TensorSupply.error`."""
        return GGUFError(reason, path=self._file.paths[0])

    def shown(self, name: str, in_base: bool) -> str:
        """Return the GGUF name, or `name` if the weight map contains none."""
        target = self._weights.to_gguf(name, self.config)
        return name if target is None else target[0]

    def may_lack(self, name: str) -> bool:
        """Return whether GGUF files never store the parameter, or only some do."""
        in_some = name.rpartition(".")[0] in self._classifier
        return in_some or self._weights.to_gguf(name, self.config) is None

    def may_ignore(self, name: str, model: Model) -> bool:
        """Return whether the tensor belongs to a head that scores tokens, and the model lacks that head."""
        return name in self.heads and model.get_output_embeddings() is None

    def generation_config(self) -> GenerationConfig | None:
        """Read which tokens end a text, and how to choose tokens; None if the file states neither."""
        stated = gguf_settings(self._file.metadata)
        if not stated:
            return None
        source = str(self._file.paths[0])
        if "eos_token_id" in stated:
            stated["pad_token_id"] = self.config.pad_token_id
        else:  # the config's ids are the only ones
            stated |= GenerationConfig.from_model_config(self.config, source=source).settings()
        return GenerationConfig.stored(stated, source)

    def describe(self, model: Model) -> None:
        """Store in the model what `save_gguf` needs to write the file again, and create biases it has."""
        add_biases(model, self.tensors)
        model.gguf, model.kept = self._source, self.kept
        model.pooling = stated_pooling(self._source.metadata)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _transformed(
    to_hf: Callable[[Tensor, Config], Tensor], load: Callable[[], Tensor], config: Config
) -> Tensor:
    return to_hf(load(), config)


class CheckpointSupply(TensorSupply):
    """The config and the tensors of a Hugging Face checkpoint.

    A model with a head loads from the checkpoint of one without a head, and the other way round.

    Args:
        model_class: the class to load.
        checkpoint: opened already.
        config: of the model; its dtype is set here.
        options: of `from_pretrained`.
        passing: whether each tensor leaves memory when the next ones are loaded. Then the head must be
            stored, and no other head.

    Raises:
        CheckpointError: the checkpoint is broken, or the config states larger sizes than the tensors.
    """

    layout = CHECKPOINT_LAYOUT
    keeps_blocks = False

    def __init__(
        self,
        model_class: type[Model],
        checkpoint: Checkpoint,
        config: Config,
        options: LoadOptions,
        *,
        passing: bool = False,
    ) -> None:
        tensors = checkpoint.tensors(pickles=not options.use_safetensors, passing=passing)
        architecture = model_class.architecture
        self._checkpoint, self.config, self.stacks = checkpoint, config, architecture.stacks
        self._architecture = architecture
        tensors = {name.replace(_TEXT_PART, "model.", 1): tensor for name, tensor in tensors.items()}
        architecture.complete(config, tensors)
        self._interleaved = architecture.interleaved
        self._check_sizes(tensors, architecture.sizes)
        # A checkpoint of the same class must contain the head of the class, and no other head.
        self._is_own = passing or model_class.__name__ in (config.architectures or ())
        stated = None if options.dtype == "auto" else options.dtype
        config.dtype = floating_dtype(stated or config.dtype or _first_dtype(tensors))
        # Some classes use another prefix than most of their architecture; a model without a head uses none.
        own = (c.base_model_prefix for c in (architecture.classes["base"], model_class))
        prefixes = (f"{prefix}." for prefix in (architecture.other_names.prefix, *own) if prefix)
        self._prefix = next((p for p in prefixes if any(name.startswith(p) for name in tensors)), "")
        self.tensors, self.heads, self.unknown = tensors, set(), []
        self.kept: dict[str, LazyTensor] = {}

    def separate(self, model: Model) -> None:
        """Name tensors as weight maps do; a tensor of the one kind must not replace one of the other.

        Such are a `model.lm_head.weight`, and a `norm.weight` beside `model.norm.weight`.
        """
        stored = {part: x for name in self.tensors for part, x in self._parts(name, self.tensors[name])}
        self.tensors = {}
        kept: dict[str, LazyTensor] = {}
        parameters = [name for name, _ in model.named_parameters()]
        of_base = {model.base_name(name) for name in parameters if model.is_in_base(name)}
        of_heads = {model.base_name(name) for name in parameters if not model.is_in_base(name)}
        for name in sorted(stored, key=lambda name: not name.startswith(self._prefix)):
            plain = self._architecture.in_models(_renewed(name.removeprefix(self._prefix)), self.config)
            if self._architecture.is_kept(plain, self.config):
                kept[plain] = stored[name]
                continue
            in_base = name.startswith(self._prefix) if self._prefix else name not in of_heads
            if plain in (of_heads if in_base else of_base) or plain in self.tensors:
                if in_base or self._is_own:
                    self.unknown.append(name)
                continue
            self.tensors[plain] = stored[name]
            if not in_base:
                self.heads.add(plain)
        kept = {name: x for name, x in kept.items() if self._architecture.is_kept(name, self.config, True)}
        self.kept.update(kept_of_checkpoint(kept, self._architecture, self.config))
        stored, self.tensors = self.tensors, separate_matrices(self.tensors, self._interleaved, self.error)
        if stored.keys() != self.tensors.keys():
            self.layout = PACKED_EXPERTS_LAYOUT

    def _parts(self, name: str, tensor: LazyTensor) -> Iterator[tuple[str, LazyTensor]]:
        """Return the parts of a tensor, by name, or itself."""
        base = name.removeprefix(self._prefix)
        for joined in self._architecture.joined_in_checkpoints:
            if (
                (parts := joined.names(base)) is not None
                and tensor.shape
                and tensor.shape[0] % len(parts) == 0
            ):
                rows = tensor.shape[0] // len(parts)
                for i, part in enumerate(parts):
                    load = partial(_rows, tensor.load, slice(i * rows, (i + 1) * rows))
                    whole = name.removesuffix(base) + part
                    yield whole, LazyTensor((rows, *tensor.shape[1:]), tensor.dtype, load)
                return
        yield name, tensor

    def _check_sizes(self, tensors: Mapping[str, LazyTensor], sizes: Sequence[str]) -> None:
        """Refuse a config that would reserve more memory than the checkpoint has weights."""
        weights = sum(math.prod(tensor.shape) for tensor in tensors.values())
        for name in sizes:
            if (size := getattr(self.config, name) or 0) > weights:
                raise self.error(f"{name}={size}, but there are {weights} weights in all")

    def error(self, reason: str) -> CheckpointError:
        """Return a `CheckpointError`, as in `TensorSupply.error`."""
        return CheckpointError(f"{self._checkpoint}: {reason}")

    def shown(self, name: str, in_base: bool) -> str:
        """Return the name with the checkpoint's prefix."""
        return self._prefix + name if in_base else name

    def may_lack(self, name: str) -> bool:
        """Return whether the checkpoint is of another class, which has another head."""
        return not self._is_own

    def may_ignore(self, name: str, model: Model) -> bool:
        """Return whether no model uses the tensor, or it belongs to the head of another class."""
        unused = model.architecture.unused
        return (
            _DEAD.search(name) is not None
            or name.startswith(unused)
            or (not self._is_own and name in self.heads)
        )

    def generation_config(self) -> GenerationConfig:
        """Read generation_config.json, or the config if that file is missing."""
        if (values := self._checkpoint.extra(GENERATION_CONFIG)) is None:
            return GenerationConfig.from_model_config(self.config, source=f"{self._checkpoint}: config.json")
        return GenerationConfig.stored(values, f"{self._checkpoint}: {GENERATION_CONFIG}")

    def describe(self, model: Model) -> None:
        """Store in the model the folder and the name of the checkpoint, and what no model runs."""
        model.kept = self.kept
        model.origin = Origin(self._checkpoint.folder, self._checkpoint.name)
        # Of a repository, only a model that may be asked for vectors of texts is worth the requests.
        if model.task == "base" or Path(self._checkpoint.place).exists():
            model.pooling = read_pooling(self._checkpoint)


def _rows(load: Callable[[], Tensor], rows: slice) -> Tensor:
    return load()[rows].contiguous()


def _renewed(name: str) -> str:
    """Return the name that transformers saves today."""
    end = next((end for end in _OLDER if name.endswith(end)), "")
    return name.removesuffix(end) + _OLDER.get(end, "")


def _first_dtype(tensors: Mapping[str, LazyTensor]) -> torch.dtype | None:
    return next((tensor.dtype for tensor in tensors.values() if tensor.dtype.is_floating_point), None)
