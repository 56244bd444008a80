"""Importance matrices: how strongly texts drive each column of a model's weight matrices.

An error in a weight costs as much as the activations that the weight is multiplied by: their mean squares,
one a column, say of which weights packing must take care. Files of them come from llama.cpp's
`llama-imatrix` or from `torchgguf imatrix`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, Self

from torch import Tensor

from torchgguf.container import GGUFError
from torchgguf.container.layout import MAGIC
from torchgguf.packing.column_statistics import CHUNK_SIZE, Activations, Statistics
from torchgguf.packing.imatrix_gguf import read_gguf_imatrix, write_gguf_imatrix
from torchgguf.packing.imatrix_legacy import read_legacy_imatrix, write_legacy_imatrix

ImatrixFormat = Literal["gguf", "dat"]

_WRITERS = {"gguf": write_gguf_imatrix, "dat": write_legacy_imatrix}


@dataclass(frozen=True, repr=False)
class ImportanceMatrix(Statistics):
    """Sums of squared activations, and what they say of the weights that they go into.

    `len` counts the tensors that something is known of; iterating gives their names.
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
        """Return how much errors in each column of a tensor matter: the mean squares of its activations.

        An expert that no token has come to is given ones: all its columns matter alike.

        Args:
            name: of the tensor in a GGUF file.
            shape: of the tensor, the length of its rows last. Files in the older format do not tell experts
                from columns, so it takes a shape to get those apart.

        Returns:
            float32 `(columns,)`, or `(experts, columns)` if the tensor holds the matrices of several; None if
            nothing is known of it.

        Raises:
            ValueError: a tensor of this shape has another number of columns, or of experts.
        """
        if (known := self.activations.get(name)) is None:
            return None
        means = known.means
        if shape is not None:
            experts, columns = math.prod(shape[:-2]), shape[-1]
            if means.numel() != experts * columns or len(means) not in (1, experts):
                raise ValueError(
                    f"the importance matrix has {known} for {name}, but the tensor's shape is "
                    f"{tuple(shape)}: was the matrix made from another model?"
                )
            means = means.view(experts, columns)
        return means[0] if len(means) == 1 else means

    def save(self, path: str | PathLike[str], format: ImatrixFormat = "gguf") -> None:
        """Write a file that llama.cpp reads too; what was there before is replaced once all is written.

        Args:
            path: where to.
            format: `"gguf"`, or `"dat"` for the older one, which holds means in place of sums and counts, and
                of the datasets the last one's name.

        Raises:
            ValueError: there is no such format, or nothing to write.
            GGUFError: the name of a tensor is too long for it, or the disk is full.
            OSError: the system refuses.
        """
        if format not in _WRITERS:
            raise ValueError(f"importance matrices are written as {' or '.join(_WRITERS)}, not as {format!r}")
        if not self.activations:
            raise ValueError("the importance matrix knows of no tensor: there is nothing to write")
        _WRITERS[format](path, self)

    @classmethod
    def merged(cls, matrices: Iterable[Self]) -> Self:
        """Return the matrix of all texts together, with chunks of the size that the first one's have.

        Raises:
            ValueError: a tensor has other sizes in one than in another, or there is no matrix at all.
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
    """Read an importance matrix in either of llama.cpp's formats, which its content tells.

    Args:
        path: of the file, whatever its name.
        chunk_size: tokens of a chunk, which files in the older format do not state: how much such a matrix
            counts for when it is merged with others.

    Raises:
        GGUFError: the file is no importance matrix, is not whole, or holds what cannot be.
        OSError: it is missing or may not be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise GGUFError("is not a regular file", path=path)
    with path.open("rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    read = read_gguf_imatrix(path) if is_gguf else read_legacy_imatrix(path, chunk_size)
    for name, activations in read.activations.items():
        if not activations.are_squares:
            raise GGUFError(f"sums of {name} are negative, infinite or not a number", path=path)
    return ImportanceMatrix(**vars(read))
