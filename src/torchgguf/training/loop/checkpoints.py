"""`RunCheckpoints`: the states of a training in a folder, from which it is resumed.

A checkpoint is a folder `step-N`: what `torch.distributed.checkpoint` writes, and `run.json`. It gets its
name when it is complete, so a killed process leaves only a folder of another name, which the next removes.
"""

import errno
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torchgguf.container.atomic import atomic_write
from torchgguf.container.system import sync
from torchgguf.training.errors import TrainingError
from torchgguf.training.loop.processes import Processes

_NAME = re.compile(r"step-(\d+)")
_UNFINISHED = ".unfinished-step"
_STATE = "run.json"


@dataclass(frozen=True)
class RunCheckpoints:
    """The checkpoints of one run.

    Attributes:
        folder: contains them.
        processes: write and read together.
        keep: how many are kept.
    """

    folder: Path
    processes: Processes
    keep: int = 2

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        found = self._all()
        return found[-1] if found else None

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        names = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return [path for _, path in sorted((int(match[1]), path) for match, path in names if match)]

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are older than the ones to keep.

        Args:
            step: the number of steps done.
            tensors: by name; FSDP's are written in parts.
            state: the rest, in the form of JSON.

        Returns:
            The folder of the checkpoint.

        Raises:
            OSError: the system refuses, such as when the disk is full. Earlier checkpoints are as they were.
        """
        from torch.distributed.checkpoint.filesystem import FileSystemWriter

        final, draft = self.folder / f"step-{step:06}", self.folder / f"{_UNFINISHED}-{step:06}"
        if self.processes.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove(path for path in self.folder.iterdir() if path.name.startswith(_UNFINISHED))
            draft.mkdir()
        self.processes.wait()
        try:
            with _errors_of_files(draft):
                _checkpointing().save(
                    dict(tensors),
                    storage_writer=FileSystemWriter(draft),
                    no_dist=not self.processes.is_joined,
                )
                if self.processes.is_main:
                    with atomic_write(draft / _STATE) as file:
                        file.write(json.dumps(state).encode())
        except BaseException:
            if self.processes.is_main:
                shutil.rmtree(draft, ignore_errors=True)
            raise
        if self.processes.is_main:
            if final.exists():
                shutil.rmtree(final)
            draft.rename(final)
            _sync_folder(self.folder)
            self._remove(self._all()[: -self.keep])
        self.processes.wait()
        return final

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """Return the `state` of a checkpoint.

        Raises:
            TrainingError: the checkpoint is broken.
        """
        try:
            state: dict[str, Any] = json.loads((checkpoint / _STATE).read_bytes())
        except (OSError, ValueError) as error:
            raise _broken(checkpoint, error) from None
        return state

    def load(self, checkpoint: Path, tensors: Mapping[str, Tensor]) -> None:
        """Read the tensors of a checkpoint into these, in place.

        Raises:
            TrainingError: the checkpoint is broken, or of another model.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.filesystem import FileSystemReader

        try:
            _checkpointing().load(
                dict(tensors),
                storage_reader=FileSystemReader(checkpoint),
                no_dist=not self.processes.is_joined,
            )
        except (CheckpointException, OSError, RuntimeError, ValueError, KeyError) as error:
            raise _broken(checkpoint, error) from None

    def remove(self) -> None:
        """Remove all checkpoints, and the folder if nothing else is in it."""
        if self.processes.is_main and self.folder.is_dir():
            self._remove([*self._all(), *self.folder.glob(f"{_UNFINISHED}*")])
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _remove(self, paths: Any) -> None:
        """Remove folders; a killed process leaves none of them half, under its name."""
        for path in list(paths):
            doomed = path.with_name(f"{_UNFINISHED}-{path.name}")
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _broken(checkpoint: Path, error: BaseException) -> TrainingError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return TrainingError(f"{checkpoint} is broken ({reason}): remove it to resume an earlier one")


def _checkpointing() -> Any:
    """Return `torch.distributed.checkpoint`, without what it says when there is one process."""
    import torch.distributed.checkpoint as checkpointing

    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.distributed.checkpoint")
    return checkpointing


@contextmanager
def _errors_of_files(folder: Path) -> Iterator[None]:
    """Raise the OSError that `torch.distributed.checkpoint` wraps, with the name of the folder."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        causes = [failure[0] for failure in error.failures.values()]
        _raise_named(next((each for each in causes if isinstance(each, OSError)), causes[0]), folder)
    except (OSError, RuntimeError) as error:
        _raise_named(error, folder)


def _raise_named(error: BaseException, folder: Path) -> None:
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    reason = os.strerror(number) if isinstance(error, OSError) else str(error).splitlines()[0]
    what = f"the checkpoint was not written ({reason}); earlier ones are there"
    raise OSError(number, what, str(folder)) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
