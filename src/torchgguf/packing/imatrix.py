"""Importance matrices: the mean squared activation for each column of a model's weight matrices.

The effect of an error in a weight is proportional to the activation that the weight is multiplied by. So the
mean squares of activations, one for each column, show which weights need small errors. llama.cpp's
`llama-imatrix` and `torchgguf imatrix` create such files.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, Self

from torch import Tensor

from torchgguf.container import GGUFError, GGUFWarning
from torchgguf.container.reading.recognition import has_gguf_magic
from torchgguf.packing.column_statistics import CHUNK_SIZE, Activations, Statistics
from torchgguf.packing.imatrix_gguf import read_gguf_imatrix, write_gguf_imatrix
from torchgguf.packing.imatrix_legacy import read_legacy_imatrix, write_legacy_imatrix

ImatrixFormat = Literal["gguf", "dat"]

_WRITERS = {"gguf": write_gguf_imatrix, "dat": write_legacy_imatrix}


@dataclass(frozen=True, repr=False)
class ImportanceMatrix(Statistics):
    """Statistics of activations, and the importance of weights that follows from them.

    `len` is the number of tensors in it; iterating yields their names.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def __repr__(self) -> str:
        return (
            f"<ImportanceMatrix: {len(self)} tensors, {self.chunk_count} chunks of {self.chunk_size} tokens>"
        )

    def get(self, name: str, shape: Sequence[int] | None = None) -> Tensor | None:
        """Return the importance of each column of a tensor: the mean squares of its activations.

        For an expert that no token reached all columns are 1.

        Args:
            name: the name of the tensor in a GGUF file.
            shape: the shape of the tensor, the length of its rows last. Files in the older format store
                experts and columns in one row, and only the shape separates them.

        Returns:
            float32 `(columns,)`, or `(experts, columns)` if the tensor contains several matrices; None if the
            importance matrix does not contain the tensor.

        Raises:
            ValueError: the number of columns or experts does not match the shape.
        """
        if (known := self.activations.get(name)) is None:
            return None
        means = known.means
        if shape is not None:
            experts, columns = math.prod(shape[:-2]), shape[-1]
            if means.numel() != experts * columns or len(means) not in (1, experts):
                raise ValueError(
                    f"the importance matrix has {known} for {name}, but the tensor's shape is "
                    f"{tuple(shape)}: does the matrix belong to another model?"
                )
            means = means.view(experts, columns)
        return means[0] if len(means) == 1 else means

    def save(self, path: str | PathLike[str], format: ImatrixFormat = "gguf") -> None:
        """Write a file that llama.cpp can read. It replaces an existing file when it is complete.

        Args:
            path: the file to create or replace.
            format: `"gguf"`, or `"dat"` for the older format. That one stores means in place of sums and
                counts, and only the name of the last dataset.

        Raises:
            ValueError: the format is unknown, or the matrix is empty.
            GGUFError: the name of a tensor is too long for the format, or the disk is full.
            OSError: the system refuses.
        """
        if format not in _WRITERS:
            raise ValueError(f"format must be {' or '.join(_WRITERS)}, got {format!r}")
        if not self.activations:
            raise ValueError("the importance matrix is empty: there is nothing to write")
        _WRITERS[format](path, self)

    @classmethod
    def merged(cls, matrices: Iterable[Self]) -> Self:
        """Return the importance matrix of all texts together.

        Args:
            matrices: at least one; the chunk size of the result is that of the first.

        Raises:
            ValueError: the sizes of a tensor differ between matrices, or there are no matrices.
        """
        matrices = list(matrices)
        if not matrices:
            raise ValueError("there are no importance matrices to merge")
        total: dict[str, Activations] = {}
        for matrix in matrices:
            for name, more in matrix.activations.items():
                try:
                    total[name] = total[name] + more if name in total else more
                except ValueError as error:
                    raise ValueError(f"the importance matrices differ in {name}: {error}") from None
        size = matrices[0].chunk_size
        most = max((int(each.counts.max()) for each in total.values()), default=0)
        return cls(total, [name for matrix in matrices for name in matrix.datasets], most // size, size)


def load_imatrix(path: str | PathLike[str], chunk_size: int = CHUNK_SIZE) -> ImportanceMatrix:
    """Load an importance matrix in either of llama.cpp's formats. The contents decide which one it is.

    A tensor whose sums or counts are not valid is left out with a warning.

    Args:
        path: the file; its name does not matter.
        chunk_size: the length of a chunk in tokens for the older format, which does not store it. It decides
            how much the matrix counts when it is merged with others.

    Raises:
        GGUFError: the file is not an importance matrix, or it is incomplete or invalid.
        OSError: the file is missing or not readable.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise GGUFError("is not a regular file", path=path)
    read = read_gguf_imatrix(path) if has_gguf_magic(path) else read_legacy_imatrix(path, chunk_size)
    usable = {name: each for name, each in read.activations.items() if each.are_squares}
    if left_out := [name for name in read.activations if name not in usable]:
        others = f" and {len(left_out) - 1} more tensors" if len(left_out) > 1 else ""
        reason = f"sums of {left_out[0]}{others} are negative, infinite or not a number"
        if not usable:
            raise GGUFError(reason, path=path)
        warnings.warn(f"{path}: {reason}: they are left out", GGUFWarning, stacklevel=2)
    return ImportanceMatrix(**{**vars(read), "activations": usable})
