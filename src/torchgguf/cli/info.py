"""`torchgguf info`: show a GGUF file, from its header only."""

import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgguf.cli.options import DebugOption, GGUFArgument, RevisionOption, split_place
from torchgguf.cli.tables import TableRows, finite, layers_as_one, metadata_table, show, table

if TYPE_CHECKING:
    from rich.table import Table

    from torchgguf.container import GGUFFile
    from torchgguf.hub import HubOptions

_All = Annotated[bool, typer.Option("--all", help="Show each tensor, not those of all layers as one.")]
_Json = Annotated[bool, typer.Option("--json", help="Everything as JSON; arrays in full.")]


@dataclass
class Totals:
    """Sums over tensors; sizes in bytes."""

    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0

    def add(self, shape: tuple[int, ...], nbytes: int) -> None:
        """Count one more tensor."""
        self.tensors += 1
        self.parameters += math.prod(shape)
        self.nbytes += nbytes

    @property
    def bits_per_weight(self) -> float:
        """The average size of a parameter in bits."""
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all sums by name."""
        return asdict(self) | {"bits_per_weight": self.bits_per_weight}


def info_command(
    file: GGUFArgument,
    revision: RevisionOption = None,
    every: _All = False,
    as_json: _Json = False,
    debug: DebugOption = False,
) -> None:
    """Show metadata and tensors of a GGUF file, without reading the tensors.

    From a repository of the Hugging Face Hub only the beginning of the file is downloaded.
    """
    with open_header(file, revision) as gguf:
        if as_json:
            _print_json(gguf)
        else:
            _print_tables(gguf, every, _projectors(file, revision))


def open_header(file: str, revision: str | None = None) -> "GGUFFile":
    """Open a file; from a repository only its header is downloaded.

    Args:
        file: a path or REPO:FILE.
        revision: a branch, tag or commit of the repository.

    Raises:
        typer.BadParameter: a local file has no revision.
    """
    from torchgguf.container import open_gguf
    from torchgguf.hub import find_gguf

    place, name = split_place(file)
    if name is None:
        if revision is not None:
            raise typer.BadParameter("only for REPO:FILE", param_hint="--revision")
        return open_gguf(find_gguf(file))
    from torchgguf.hub import open_remote_gguf

    return open_remote_gguf(place, name, revision=revision)


def totals(gguf: "GGUFFile") -> tuple[Totals, dict[str, Totals]]:
    """Return the sums over all tensors, and by type with the most bytes first."""
    whole, by_type = Totals(), defaultdict[str, Totals](Totals)
    for tensor in gguf.tensors.values():
        for part in (whole, by_type[tensor.type.name]):
            part.add(tensor.shape, tensor.nbytes)
    return whole, dict(sorted(by_type.items(), key=lambda item: -item[1].nbytes))


def _print_json(gguf: "GGUFFile") -> None:
    from torchgguf.container import type_name

    whole, by_type = totals(gguf)
    document = {
        "files": [str(path) for path in gguf.paths],
        "version": gguf.version,
        "byte_order": gguf.byte_order,
        "alignment": gguf.alignment,
        "metadata": {key: finite(value) for key, value in gguf.metadata.items()},
        "metadata_types": {key: type_name(kind) for key, kind in gguf.metadata.types.items()},
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.type.name,
                "shape": tensor.shape,
                "nbytes": tensor.nbytes,
                "offset": tensor.offset,
                "file": tensor.shard,
            }
            for tensor in gguf.tensors.values()
        ],
        "totals": whole.to_dict(),
        "types": {name: part.to_dict() for name, part in by_type.items()},
    }
    print(json.dumps(document, allow_nan=False))


def _projectors(file: str, revision: str | None) -> list[str]:
    """Return the lines that name the projectors beside a file."""
    from torchgguf.cli.projectors import projector_line
    from torchgguf.hub import find_projectors

    place, name = split_place(file)
    options: HubOptions = {} if revision is None else {"revision": revision}
    return projector_line(find_projectors(place, name, **options))


def _print_tables(gguf: "GGUFFile", every: bool, more: list[str]) -> None:
    whole, by_type = totals(gguf)
    types: TableRows = [
        (name, f"{part.tensors:,}", f"{part.parameters:,}", f"{part.nbytes:,}", f"{part.bits_per_weight:.3f}")
        for name, part in [*by_type.items(), ("all", whole)]
    ]
    show(
        f"GGUF version {gguf.version}, {gguf.byte_order} endian, alignment {gguf.alignment}, "
        f"{gguf.size:,} bytes in {len(gguf.paths)} file{'s'[: len(gguf.paths) > 1]}",
        *more,
        table("types", ["type", "tensors", "parameters", "bytes", "bits per weight"], types),
        metadata_table(gguf.metadata),
        _tensor_table(gguf, every),
    )


def _tensor_table(gguf: "GGUFFile", every: bool) -> "Table":
    """Return a table with a row for each tensor, or for the same tensors of all layers."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for tensor in gguf.tensors.values():
        name = tensor.name if every else layers_as_one(tensor.name)
        key = (name, tensor.type.name, " × ".join(map(str, tensor.shape)))
        groups.setdefault(key, []).append(tensor.nbytes)
    title = "tensors (shape in torch's order)"
    if every:
        return table(
            title,
            ["name", "type", "shape", "bytes"],
            [(*key, f"{sum(sizes):,}") for key, sizes in groups.items()],
        )
    rows = [
        (name, f"{len(sizes):,}", kind, shape, f"{sum(sizes):,}")
        for (name, kind, shape), sizes in groups.items()
    ]
    return table(f"{title}; --all shows each", ["name", "tensors", "type", "shape", "bytes"], rows)
