"""Which tensors of a Hugging Face checkpoint fill which parameters of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from torchgguf.models.core.config import FLOATING_DTYPES
from torchgguf.models.core.model import Model
from torchgguf.models.io.checkpoint import CheckpointError, CheckpointTensor, list_names

# Ends of the names of masks, frequencies and positions that older versions of transformers saved along. They
# follow from the config, and nothing reads them.
_DEAD = re.compile(r"(^|\.)(attn\.bias|masked_bias|rotary_emb\.inv_freq|causal_mask|position_ids)$")


@dataclass(frozen=True)
class Source:
    """What fills a parameter: one tensor, or the parts of each of its matrices, one above the other."""

    names: Sequence[Sequence[str]]
    tensors: Sequence[Sequence[CheckpointTensor]]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the tensor has in the checkpoint: the widest, if its parts differ."""
        return reduce(torch.promote_types, (part.dtype for row in self.tensors for part in row))

    def load(self) -> Tensor:
        """Return the tensor, in the dtype that it has in the checkpoint."""
        if self.tensors[0][0].shape == self.shape:
            return self.tensors[0][0].load()
        whole = torch.empty(self.shape, dtype=self.dtype)
        for matrix, row in zip(whole, self.tensors, strict=True):
            for place, part in zip(matrix.chunk(len(row)), row, strict=True):
                place.copy_(part.load())
        return whole


def match(
    model: Model, tensors: Mapping[str, CheckpointTensor], claimed: bool, new_sizes: bool = False
) -> tuple[dict[str, Source], list[str]]:
    """Find a source for every parameter of a model, and a parameter for every tensor.

    A model with a head takes the checkpoint of one without, and the other way round.

    Args:
        model: its parameters may be on the meta device.
        tensors: the checkpoint's, by name.
        claimed: the checkpoint says that it is of this very class, so its head must be there and no other.
        new_sizes: a head of another size is as good as none.

    Returns:
        The sources by the parameters' names, and the names of parameters of a head that has no tensors.

    Raises:
        CheckpointError: naming all tensors without a parameter, parameters without a tensor, and tensors of
            wrong shapes or dtypes.
    """
    prefix, stored, heads = _by_base_names(model, tensors)
    _untie(model, stored)

    def shown(name: str) -> str:
        return name if name in heads else prefix + name

    sources, new, missing, wrong = {}, [], [], []
    for name, parameter in model.named_parameters():
        in_base = model.is_in_base(name)
        parts, part_shape = _parts(model, model.base_name(name), parameter, stored)
        absent = [part for row in parts for part in row if part not in stored]
        found = [[stored.pop(part) for part in row if part in stored] for row in parts]
        if absent and (claimed or in_base):
            missing += [prefix + part if in_base else part for part in absent]
        elif absent:
            new.append(name)
        elif misfits := _misfits(parts, found, part_shape):
            if new_sizes and not in_base:
                new.append(name)
            else:
                wrong += [prefix + misfit if in_base else misfit for misfit in misfits]
        else:
            sources[name] = Source(parts, found, tuple(parameter.shape))
    # What is not of the model without a head is of a head, which this model may not have.
    unused = [shown(name) for name in stored if not _DEAD.search(name) and (claimed or name not in heads)]
    problems = {"no parameter takes": unused, "no tensor fills": missing, "not as the config says": wrong}
    if texts := [f"{what}: {list_names(names)}" for what, names in problems.items() if names]:
        raise CheckpointError(f"the checkpoint does not fit {type(model).__name__}: {'; '.join(texts)}")
    return sources, new


def _by_base_names(
    model: Model, tensors: Mapping[str, CheckpointTensor]
) -> tuple[str, dict[str, CheckpointTensor], set[str]]:
    """Call tensors as weight maps do, whatever the class that saved them calls them.

    Returns:
        The prefix of all that is in the model without a head: some classes have another one than all others,
        and that model itself has none. The tensors. The names of those that are in a head.
    """
    usual = model.architecture.classes["base"].base_model_prefix
    for prefix in (f"{usual}.", f"{model.base_model_prefix}."):
        if any(name.startswith(prefix) for name in tensors):
            heads = {name for name in tensors if not name.startswith(prefix)}
            return prefix, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, heads
    own = {name for name, _ in model.named_parameters() if not model.is_in_base(name)}
    return "", dict(tensors), own & tensors.keys()


def _untie(model: Model, stored: dict[str, CheckpointTensor]) -> None:
    """Let weights that the head shares with the embedding be there once, whichever of the two has them."""
    if (head := model.tied_head) is None:
        return
    paths = {module: path for path, module in model.named_modules()}
    names = [model.base_name(f"{paths[m]}.weight") for m in (model.get_input_embeddings(), head)]
    if (copy := stored.pop(names[1], None)) is None:
        return
    a, b = stored.setdefault(names[0], copy).load(), copy.load()
    if a.data_ptr() != b.data_ptr() and not (a.dtype == b.dtype and torch.equal(a, b)):
        raise CheckpointError(
            f"the config says tie_word_embeddings=True, but {names[1]} and {names[0]} differ: "
            "give tie_word_embeddings=False to use both"
        )


def _parts(
    model: Model, name: str, parameter: Tensor, stored: Mapping[str, CheckpointTensor]
) -> tuple[list[list[str]], tuple[int, ...]]:
    """Say which tensors make up a parameter, and what shape each has."""
    if name not in stored and parameter.shape[0] <= len(stored):  # there are no more names than tensors
        for stack in model.architecture.stacks:
            if (names := stack.part_names(name, parameter.shape[0])) is not None:
                return names, (parameter.shape[1] // len(stack.parts), *parameter.shape[2:])
    return [[name]], tuple(parameter.shape)


def _misfits(
    names: Sequence[Sequence[str]], tensors: Sequence[Sequence[CheckpointTensor]], shape: tuple[int, ...]
) -> list[str]:
    problems = []
    for row_of_names, row in zip(names, tensors, strict=True):
        for name, tensor in zip(row_of_names, row, strict=True):
            if tensor.shape != shape:
                problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
            elif tensor.dtype not in FLOATING_DTYPES:
                problems.append(f"{name} is of {tensor.dtype}")
    return problems
