"""The public names of transformers that matter to scripts, and those of them that are not here.

Each area lists what transformers has, by asking the installed one, and looks for the same here.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

import torchgguf
from tests.models.tiny import CASES, counterpart, reference
from tests.peers.transformers import our_name
from tests.support import ROOT as ROOT
from torchgguf.generation import GenerationMixin
from torchgguf.models import registry

# One tiny model of each architecture.
KINDS = ("llama", "mistral", "qwen2", "qwen2moe", "qwen3", "phi", "gpt2", "bloom")
# The modules of transformers whose names have to do with what is here.
_RELATED = re.compile(
    r"cache_utils|configuration_utils|generation(\..+)?|modeling_outputs|modeling_utils|pipelines(\..+)?"
    rf"|models\.(auto|{'|'.join(registry.MODEL_TYPES)})(\..+)?"
    r"|trainer_utils|tokenization_\w+|utils(\.(generic|logging|quantization_config))?"
)


def public(value: Any) -> set[str]:
    """Return the public names of an object, without those of torch's modules and of dicts' own workings."""
    return {name for name in dir(value) if not name.startswith("_")}


def missing(theirs: Any, ours: Any) -> set[str]:
    """Return the public names of an object that another lacks."""
    return {name for name in public(theirs) if not _has(ours, our_name(name))}


def _has(value: Any, name: str) -> bool:
    try:
        return hasattr(value, name)
    except Exception:  # a property that has no value now is there all the same
        return True


def _pairs() -> Iterable[tuple[Any, Any]]:
    for kind in KINDS:
        theirs = reference(CASES[kind])
        yield counterpart(theirs), theirs


def _refused(names: Iterable[str], call: Callable[[str], Any]) -> set[str]:
    """Return the names of arguments that a call does not know."""
    refused = set()
    for name in names:
        try:
            call(name)
        except TypeError as error:
            if name in str(error):
                refused.add(name)
    return refused


def arguments(function: Any) -> dict[str, Any]:
    """Return the named arguments of a function, with their defaults."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "cls") and p.kind not in kinds}


def models() -> set[str]:
    """Return the attributes of language models."""
    return {name for ours, theirs in _pairs() for name in missing(theirs, ours)}


def configs() -> set[str]:
    """Return the attributes of configs."""
    return {name for ours, theirs in _pairs() for name in missing(theirs.config, ours.config)}


def generation_configs() -> set[str]:
    """Return the attributes of generation configs."""
    return missing(transformers.GenerationConfig(), torchgguf.GenerationConfig())


def outputs() -> set[str]:
    """Return the attributes of outputs."""
    name = "CausalLMOutputWithPast"
    theirs = getattr(transformers.modeling_outputs, name)(logits=torch.zeros(1))
    return missing(theirs, getattr(torchgguf, name)(logits=torch.zeros(1)))


def caches() -> set[str]:
    """Return the attributes of caches."""
    static = missing(transformers.StaticCache, torchgguf.StaticCache)
    return static | missing(transformers.DynamicCache(), torchgguf.DynamicCache())


def forward() -> set[str]:
    """Return the arguments of `forward`, of every class."""
    absent = set()
    for model_type in registry.MODEL_TYPES:
        for ours in registry.architecture_of_type(model_type).classes.values():
            if not hasattr(transformers, ours.__name__):  # InternLM2
                continue
            theirs = getattr(transformers, ours.__name__)
            known = {our_name(name) for name in arguments(theirs.forward)}
            own = arguments(ours.forward).keys() | arguments(_base(ours).forward).keys()
            absent |= known - own
    return absent


def _base(model_class: Any) -> Any:
    return getattr(model_class, "base_class", model_class)


def generate() -> set[str]:
    """Return the arguments of `generate`, each with the value that asks for nothing."""
    model = counterpart(reference(CASES["llama"]))
    ids = torch.tensor([[3, 4]])
    known = arguments(transformers.GenerationMixin.generate)

    def call(name: str) -> Any:
        given = {} if name == "inputs" else {"input_ids": ids}
        value = ids if name == "inputs" else known[name]
        return GenerationMixin.generate(model, **given, max_new_tokens=1, **{name: value})

    return _refused(known, call)


def from_pretrained(folder: Path) -> set[str]:
    """Return the arguments of `from_pretrained`, each with its default."""
    reference(CASES["llama"]).save_pretrained(folder)
    known = arguments(transformers.PreTrainedModel.from_pretrained)
    del known["pretrained_model_name_or_path"]
    return _refused(known, lambda name: torchgguf.LlamaModel.from_pretrained(folder, **{name: known[name]}))


def save_pretrained(folder: Path) -> set[str]:
    """Return the arguments of `save_pretrained`, each with its default."""
    model = counterpart(reference(CASES["llama"], "AutoModel"), auto_class="AutoModel")
    known = arguments(transformers.PreTrainedModel.save_pretrained)
    del known["save_directory"]
    return _refused(known, lambda name: model.save_pretrained(folder, **{name: known[name]}))


def top_level() -> set[str]:
    """Return the names in transformers itself that have to do with what is here."""
    homes: dict[str, str] = transformers._class_to_module  # type: ignore[attr-defined]
    related = {name for name, home in homes.items() if _RELATED.fullmatch(home)}
    return {name for name in related if not name.startswith("_") and not hasattr(torchgguf, name)}
