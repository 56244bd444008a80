"""`Architecture`: a GGUF architecture with its config class, config map and weight map."""

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torchgguf.container import GGUFError, GGUFFile, Metadata
from torchgguf.container.errors import brief
from torchgguf.models.core.config import Config
from torchgguf.models.core.config_map import Field, Header, Rule, read_fields
from torchgguf.models.core.layer_values import check_layers, with_equal_layers
from torchgguf.models.core.usual_tensors import UsualTensors
from torchgguf.models.core.weight_map import (
    NO_OTHER_NAMES,
    Interleaved,
    Joined,
    OtherNames,
    Row,
    Stack,
    WeightMap,
)
from torchgguf.nn import FileForm

_logger = logging.getLogger(__name__)

# metadata key -> config field: generation reads them; the tokenizer writes them
_TOKEN_IDS = {
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
    "tokenizer.ggml.padding_token_id": "pad_token_id",
}
# tokens that end a text, a turn or a message, and stop generation
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")

# tasks of classes that GGUF files describe, the first that an architecture has a class for
_MAIN_TASKS = ("causal_lm", "seq2seq_lm", "base")

# the number of the layer in the name of a tensor, in GGUF files and in weight maps
_LAYER = re.compile(r"(?:blk|layers)\.([0-9]{1,6})\.")


@dataclass(frozen=True)
class Architecture:
    """One architecture, as data.

    Attributes:
        gguf: the value of `general.architecture`, and the prefix of its keys.
        other_ggufs: other values of `general.architecture`; each with a function that returns whether files
            of models with a config state it.
        config_class: the class of the config that the metadata become.
        rules: the config map.
        rows: of the weight map.
        matches: returns whether metadata are of this one of the architectures that share `gguf`.
        marker: a tensor that, of these, only files of this one contain; None: there is no such tensor.
        stacks: parameters that Hugging Face checkpoints store in parts.
        interleaved: parameters that Hugging Face checkpoints may store in MXFP4.
        classifier: modules that only models which classify texts have, and only some files.
        joined: modules whose tensors converted GGUF files store as one.
        joined_in_checkpoints: modules whose tensors Hugging Face checkpoints may store as one.
        other_names: of modules, in Hugging Face checkpoints.
        states_head: whether files store the head even if it shares the embedding's weights, as llama.cpp
            requires.
        kept_forms: forms of parameters of layers that models keep, but do not run, by the names of their
            modules; layers that run know their own.
        unused: beginnings of the names of tensors in Hugging Face checkpoints that no class here has.
        scales_biases: whether the factor of an MLP's matrix applies to the bias, too, as in llama.cpp.
        of_config: returns whether checkpoints with a config are of this one of the architectures of a model
            type.
        unread: names of tensors in GGUF files that llama.cpp accepts, but does not use; `{}` stands for the
            number of the layer.
        classes: the models by the name of their task; each is registered when it is defined.
    """

    gguf: str
    config_class: type[Config]
    rules: Sequence[Rule]
    rows: Sequence[Row]
    matches: Callable[[Metadata], bool] = lambda metadata: True
    marker: str | None = None
    stacks: Sequence[Stack] = ()
    interleaved: Sequence[Interleaved] = ()
    classifier: tuple[str, ...] = ()
    joined: Sequence[Joined] = ()
    joined_in_checkpoints: Sequence[Joined] = ()
    other_names: OtherNames = NO_OTHER_NAMES
    states_head: bool = False
    kept_forms: Mapping[str, FileForm] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    other_ggufs: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    scales_biases: bool = False
    unread: tuple[str, ...] = ()
    of_config: Callable[[Any], bool] = lambda config: True
    classes: dict[str, type[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def gguf_of(self, config: Config) -> str:
        """Return the value of `general.architecture` for models with a config."""
        return next((name for name, applies in self.other_ggufs.items() if applies(config)), self.gguf)

    def register(self, model_class: Any) -> None:
        """Register a class under its task, such as `"base"` or `"causal_lm"`, if it is the first."""
        if model_class.task is not None and model_class.__module__ == self.config_class.__module__:
            self.classes.setdefault(model_class.task, model_class)

    @property
    def main_class(self) -> type[Any]:
        """The class that GGUF files describe: with the head that scores tokens, if there is such a class."""
        return next(self.classes[task] for task in _MAIN_TASKS if task in self.classes)

    @cached_property
    def weights(self) -> WeightMap:
        """The weight map."""
        return WeightMap(self.rows)

    @property
    def sizes(self) -> list[str]:
        """Names of the config's fields that determine the sizes or the number of tensors."""
        return [rule.name for rule in self.rules if isinstance(rule, Field) and rule.limit is not None]

    @property
    def config_tensors(self) -> frozenset[str]:
        """Names of the GGUF tensors that belong to the config, not to a module."""
        return frozenset(name for rule in self.rules for name in rule.tensors)

    def is_unread(self, name: str) -> bool:
        """Return whether llama.cpp accepts a tensor of a GGUF file, but does not use it."""
        return _LAYER.sub("blk.{}.", name) in self.unread

    def is_kept(self, name: str, config: Config, in_new: bool = False) -> bool:
        """Return whether a tensor is one that models keep, but do not run.

        Args:
            name: in a GGUF file or in weight maps.
            config: of the model.
            in_new: whether a file of the other kind, made from the model, contains it, too.
        """
        if self.is_unread(name):
            return not in_new
        if (layer := _LAYER.match(name)) is None:
            return False
        return any(rule.is_kept(config, int(layer[1]), name[layer.end() :], in_new) for rule in self.rules)

    def kept_form(self, name: str) -> FileForm | None:
        """Return the form of a parameter in files, by its name in weight maps, if its layer is kept."""
        return self.kept_forms.get(_LAYER.sub("", name).removesuffix(".weight"))

    def complete(self, config: Config, names: Collection[str]) -> None:
        """Set fields of a config that follow from the names of a checkpoint's tensors."""
        for rule in self.rules:
            rule.complete(config, names)

    def in_models(self, name: str, config: Config) -> str:
        """Return the name of a tensor in weight maps, given that in checkpoints without prefix."""
        for rule in self.rules:
            name = rule.in_models(name, config)
        return self.other_names.in_models(name)

    def in_checkpoints(self, name: str, config: Config, prefix: str) -> str:
        """Return the name in checkpoints of a tensor of a layer that is kept, given that in weight maps."""
        whole = (rule.in_checkpoints(name, config) for rule in self.rules)
        return next((found for found in whole if found is not None), prefix + name)

    def tensors_of(self, file: GGUFFile) -> UsualTensors:
        """Return the tensors of a file by the names in the weight map."""
        return UsualTensors(file, self.weights, self.config_tensors)

    def read_config(self, file: GGUFFile, ignored: Collection[str] = ()) -> Config:
        """Read a file's config.

        Args:
            file: the file.
            ignored: keys that are not read, with or without the name of the architecture.

        Raises:
            GGUFError: keys are missing, invalid or unknown; the message names all of them.
        """
        name = file.metadata["general.architecture"]
        prefix = f"{name}."
        values = {k.removeprefix(prefix): v for k, v in file.metadata.items() if k.startswith(prefix)}
        left_out = [key for key in values if key in ignored or prefix + key in ignored]
        for key in left_out:
            _logger.warning("%s: %s%s = %s is ignored", file.paths[0], prefix, key, brief(values.pop(key)))
        tensors = self.tensors_of(file)
        header = Header(with_equal_layers(values), tensors.infos, tensors.load, str(name))
        try:
            check_layers(header)
            fields = read_fields(self.rules, header)
            config = self.config_class(**fields, **_token_ids(file.metadata))
            self._check_tensors(config, header)
        except (GGUFError, ValueError) as error:
            reason = f"the config of this {name} model is invalid: {error}"
            raise GGUFError(reason, path=file.paths[0]) from None
        return config

    def _check_tensors(self, config: Config, header: Header) -> None:
        for rule in self.rules:
            for name, tensor in rule.write_tensors(config).items():
                if name in header.tensors and header.tensors[name].shape != tensor.shape:
                    actual, expected = header.tensors[name].shape, tuple(tensor.shape)
                    raise GGUFError(f"tensor {name} has shape {actual}, expected {expected}")


def _token_ids(metadata: Metadata) -> dict[str, Any]:
    """Return the ids that the file states, and None for others: a class's defaults may not match."""
    ids: dict[str, Any] = {field: metadata.get(key) for key, field in _TOKEN_IDS.items()}
    ends = [id for key in _ENDS if (id := metadata.get(key)) is not None]
    if wrong := [id for id in (*ids.values(), *ends) if id is not None and type(id) is not int]:
        raise GGUFError(f"the id of a special token must be an integer, got {wrong[0]!r}")
    if ends := list(dict.fromkeys(ends)):
        ids["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    return ids
