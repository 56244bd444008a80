"""`Processes`: those that train one model together, as torchrun starts them; or one alone."""

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Parallelism(StrEnum):
    """How several processes hold a model.

    Attributes:
        replicate: each holds it whole, and gradients are summed up.
        shard: each holds a part of every parameter, packed ones included (FSDP2).
    """

    replicate = "replicate"
    shard = "shard"


class Processes:
    """The processes of a training, and what they compute together.

    Under torchrun the first use joins them: by NCCL for models on GPUs, else by Gloo.

    Args:
        device: of the model.
        parallelism: how the model is held.

    Attributes:
        rank: number of this process, from 0.
        size: number of all.
    """

    def __init__(self, device: torch.device, parallelism: Parallelism = Parallelism.replicate) -> None:
        self._device = device
        self._parallelism = Parallelism(parallelism)
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        self.is_joined = dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if self.is_joined else (0, 1)
        self.is_sharded = self.is_joined and self._parallelism is Parallelism.shard

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    @property
    def gradient_factor(self) -> int:
        """The factor on a loss with which the gradient is that of the sum: FSDP takes the mean."""
        return self.size if self.is_sharded else 1

    def prepare(self, module: nn.Module, layers: Iterable[nn.Module]) -> None:
        """Divide a module among the processes, in place, or make its trained parameters the same in all.

        Args:
            module: contains the model, and runs it in its `forward`.
            layers: parts of it that are gathered one at a time.
        """
        if self.is_sharded:
            from torch.distributed.fsdp import fully_shard

            for parameter in module.parameters():
                self._copy_from_first(parameter)
            for layer in layers:
                fully_shard(layer)
            fully_shard(module)
        elif self.is_joined:
            for parameter in module.parameters():
                self._copy_from_first(parameter)

    def _copy_from_first(self, parameter: nn.Parameter) -> None:
        """Make a trained parameter that of the first process; frozen ones come from the same file."""
        if parameter.requires_grad:
            dist.broadcast(parameter.data, 0)

    def reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum up the gradients of all processes, in place, unless FSDP has done so."""
        if self.is_sharded or not self.is_joined:
            return
        trained = list(parameters)
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten().float() for p in trained if p.grad is not None])
        dist.all_reduce(flat)
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(part.view_as(parameter.grad))

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if not self.is_joined:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64, device=self._device)
        dist.all_reduce(sums)
        return sums.tolist()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.is_joined:
            dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all of its parts; all processes that share it must call this."""
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered
