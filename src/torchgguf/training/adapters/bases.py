"""The model that an adapter belongs to, described without its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any, NamedTuple, Unpack

import torch

from torchgguf.hub import HubOptions
from torchgguf.models import registry
from torchgguf.models.core.model import Model
from torchgguf.models.io.assembling import open_model
from torchgguf.models.io.biases import create_biases
from torchgguf.models.io.checkpoint import Checkpoint
from torchgguf.models.io.opening import open_source, read_config
from torchgguf.models.io.options import LoadOptions
from torchgguf.models.io.supply import GGUFSupply
from torchgguf.training.adapters.changes import AdapterError, Change
from torchgguf.training.adapters.gguf_files import FileAdapter
from torchgguf.training.adapters.layouts import changes_in_file, changes_in_model
from torchgguf.training.adapters.peft_changes import changes_of_peft, peft_of_changes
from torchgguf.training.adapters.peft_files import PeftAdapter


class Base(NamedTuple):
    """A model that adapters change.

    Attributes:
        model: all its layers are plain and on the meta device.
        architecture: the value of `general.architecture` in its files.
        name: names the model in errors.
        tensors: names of the tensors in its file; None: there is no file yet.
    """

    model: Model
    architecture: str
    name: str
    tensors: Collection[str] | None = None

    @classmethod
    def of(cls, model: Model) -> Base:
        """Return the description of a loaded model, which may be packed or have adapters."""
        with torch.device("meta"):
            plain = type(model)(model.config)
            create_biases(plain, model.added_biases)
        return cls(plain, model.architecture.gguf_of(model.config), type(model).__name__)

    @classmethod
    def open(
        cls, place: str | PathLike[str], gguf_file: str | None = None, **hub: Unpack[HubOptions]
    ) -> Base:
        """Describe the model in a GGUF file or a Hugging Face folder, with the errors of `from_pretrained`.

        Args:
            place: as in `from_pretrained`.
            gguf_file: as in `from_pretrained`.
            hub: options for downloads.
        """
        with open_source(place, gguf_file, **hub) as source:
            if isinstance(source, Checkpoint):
                config = read_config(source, LoadOptions())
                model_class: type[Any] = registry.architecture_of_type(config.model_type).main_class
                with torch.device("meta"):
                    model = model_class(config)
                return cls(model, model.architecture.gguf_of(config), str(place))
            model_class = registry.architecture_of_file(source).main_class
            opened = open_model(model_class, GGUFSupply(model_class, source, LoadOptions()), LoadOptions())
            name = str(source.metadata["general.architecture"])
            return cls(opened.model, name, str(source.paths[0]), frozenset(source.tensors))

    def in_file(self, adapter: PeftAdapter) -> dict[str, Change]:
        """Return what an adapter changes, by the names of tensors in the model's file.

        Raises:
            AdapterError: it does not belong to the model, or is more than low-rank matrices.
        """
        changes = changes_in_file(self.model, changes_of_peft(self.model, adapter))
        self.check_names(changes)
        return changes

    def in_model(self, adapter: FileAdapter) -> PeftAdapter:
        """Return an adapter by PEFT's names.

        Raises:
            AdapterError: it does not belong to the model.
        """
        adapter.check_architecture(self.architecture, self.name)
        changes = changes_in_model(self.model, adapter.changes)
        return peft_of_changes(self.model, changes, self.model.name_or_path or None)

    def check_names(self, changes: Mapping[str, Change]) -> None:
        """Check that the model's file has tensors of these names.

        Raises:
            AdapterError: it lacks one, which the message names.
        """
        there = changes if self.tensors is None else self.tensors
        for name in changes:
            if name not in there:
                raise AdapterError(
                    f"{self.name} has no tensor {name}, which the adapter changes: files of llama.cpp's "
                    "converter of today have it"
                )
