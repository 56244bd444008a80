"""Records of training data, from files and from objects in memory."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from torchgguf.training.data.problems import Problems

# A file, several files, or records: a list of dicts, a `datasets.Dataset`, a generator.
DataSource: TypeAlias = str | PathLike[str] | Iterable[Any]


@dataclass(frozen=True, slots=True)
class DataRecord:
    """One record of training data.

    Attributes:
        fields: its fields.
        place: where it is: a line of a file, or its number among the records.
    """

    fields: Mapping[str, Any]
    place: str


def read_records(source: DataSource, problems: Problems) -> list[DataRecord]:
    """Read records.

    Args:
        source: JSON lines (`.jsonl`), a JSON list (`.json`), Parquet (`.parquet`), or a text (`.txt`, `.md`),
            each one file or a list of files; or records, each a mapping.
        problems: receives the records that are broken, which are left out.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: a Parquet file needs the package datasets.
        ValueError: the kind of a file is unknown, or the whole file is broken.
    """
    if isinstance(source, str | PathLike):
        return list(_read_file(Path(source), problems))
    entries = list(source)
    if entries and all(isinstance(entry, str | PathLike) for entry in entries):
        records = ((Path(entry), _read_file(Path(entry), problems)) for entry in entries)
        return [
            DataRecord(each.fields, f"{path.name} {each.place}") for path, found in records for each in found
        ]
    return list(_mappings(((f"record {i + 1}", entry) for i, entry in enumerate(entries)), problems))


def _read_file(path: Path, problems: Problems) -> Iterator[DataRecord]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with training data")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: training data must be a file of {', '.join(_READERS)}")
    return read(path, problems)


def _mappings(entries: Iterable[tuple[str, Any]], problems: Problems) -> Iterator[DataRecord]:
    for place, entry in entries:
        if isinstance(entry, Mapping):
            yield DataRecord(entry, place)
        else:
            problems.add(place, f"must be an object with fields, not {type(entry).__name__}; left out")


def _read_lines(path: Path, problems: Problems) -> Iterator[DataRecord]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line.rstrip())
            except UnicodeDecodeError as error:
                problems.add(f"line {number}", f"is not UTF-8 (byte {error.start + 1}); left out")
            except (ValueError, RecursionError) as error:
                problems.add(f"line {number}", f"is not JSON ({_reason(error)}); left out")
            else:
                yield from _mappings([(f"line {number}", entry)], problems)


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error) or type(error).__name__


def _read_list(path: Path, problems: Problems) -> Iterator[DataRecord]:
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        line = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{path}: is not JSON: {_reason(error)}{line}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: must be a list of records, not {type(entries).__name__}")
    return _mappings(((f"record {i + 1}", entry) for i, entry in enumerate(entries)), problems)


def _read_parquet(path: Path, problems: Problems) -> Iterator[DataRecord]:
    try:
        from datasets import Dataset  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(f"{path}: Parquet needs the package datasets: pip install datasets") from None
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as cache:
        try:
            rows = Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True).to_list()
        except Exception as error:  # its errors have no base of their own
            raise ValueError(f"{path}: is not a Parquet file: {error}") from None
    return _mappings(((f"row {i + 1}", _without_none(row)) for i, row in enumerate(rows)), problems)


def _without_none(value: Any) -> Any:
    """Drop the fields that a table adds to rows which lack them."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _read_text(path: Path, problems: Problems) -> Iterator[DataRecord]:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not a UTF-8 text (byte {error.start + 1})") from None
    yield DataRecord({"text": text}, "the text")


_READERS: dict[str, Callable[[Path, Problems], Iterator[DataRecord]]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_list,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".md": _read_text,
}
