"""`torchgguf metadata`: show, set and remove metadata of a GGUF file."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgguf.cli.info import open_header
from torchgguf.cli.options import GGUF_HELP, DebugOption, split_place
from torchgguf.cli.tables import finite, metadata_table, show
from torchgguf.cli.terminal import note, one_line, progress_bar

if TYPE_CHECKING:
    from torchgguf.container import Metadata, MetadataType

_File = Annotated[
    str,
    typer.Argument(metavar="FILE", help=f"{GGUF_HELP} Files on the Hub can be shown, but not changed."),
]
_Key = Annotated[str | None, typer.Argument(metavar="KEY", help="Show only the value of this key.")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a value; repeatable. Arrays are JSON; @NAME reads the file NAME, @@ stands for @.",
    ),
]
_Remove = Annotated[
    list[str] | None, typer.Option("--remove", metavar="KEY", help="Remove a key; repeatable.")
]
_Type = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="The type of the value to set, such as uint32, string or [float32]; by default that of the key. "
        "A new key gets the type that the format states, or else one that matches the value.",
    ),
]
_Force = Annotated[
    bool, typer.Option("--force", help="Also make changes after which no program may load the file.")
]
_Room = Annotated[
    int | None,
    typer.Option(
        "--room",
        metavar="BYTES",
        min=0,
        help="Bytes to reserve for later edits if the file is rewritten.",
        show_default="16384",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="As JSON; arrays in full.")]


def metadata_command(
    file: _File,
    key: _Key = None,
    set: _Set = None,
    remove: _Remove = None,
    type: _Type = None,
    force: _Force = False,
    room: _Room = None,
    as_json: _Json = False,
    debug: DebugOption = False,
) -> None:
    """Show the metadata of a GGUF file, or change them.

    Only the metadata are written if they fit before the tensors. Otherwise the whole file is rewritten, with
    room for the next change. If the process dies, only this change is lost: the next `torchgguf metadata`
    restores the file.
    """
    if not set and not remove:
        if type is not None or force or room is not None:
            raise typer.BadParameter("--type, --force and --room require --set or --remove")
        _show(file, key, as_json)
    elif key is not None or as_json:
        raise typer.BadParameter(
            "KEY and --json show metadata, --set and --remove change them: do only one at a time"
        )
    else:
        _edit(file, set or [], remove or [], type, force, room)


def _show(file: str, key: str | None, as_json: bool) -> None:
    metadata = _read(file)
    if key is not None:
        if key not in metadata:
            raise ValueError(f"{file}: there is no key {key!r}")
        value = finite(metadata[key])
        plain = isinstance(value, str) and not as_json
        print(_for_terminal(value) if plain else json.dumps(value, ensure_ascii=as_json))
    elif as_json:
        print(json.dumps({name: finite(value) for name, value in metadata.items()}, allow_nan=False))
    else:
        show(metadata_table(metadata))


def _read(file: str) -> "Metadata":
    from torchgguf.container import undo_unfinished

    if undo_unfinished(file):
        note(f"{one_line(file)}: an unfinished change was undone.")
    with open_header(file) as gguf:
        return gguf.metadata


def _for_terminal(text: str) -> str:
    """Escape control characters for a terminal, where strings of a file could be harmful."""
    return "\n".join(map(one_line, text.split("\n"))) if sys.stdout.isatty() else text


def _edit(
    file: str, settings: list[str], removed: list[str], type: str | None, force: bool, room: int | None
) -> None:
    from torchgguf.container import edit_metadata, type_name
    from torchgguf.container.editing.edits import ROOM
    from torchgguf.container.editing.stated_types import stated_type
    from torchgguf.container.metadata import infer_type

    pairs = [setting.partition("=")[::2] for setting in settings]
    for (key, _), setting in zip(pairs, settings, strict=True):
        if not key or "=" not in setting:
            raise typer.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
        if [other for other, _ in pairs].count(key) > 1:
            raise typer.BadParameter(f"{key} is set twice", param_hint="--set")
    if type is not None and len(pairs) != 1:
        raise typer.BadParameter(
            "requires exactly one --set: change keys of other types separately", param_hint="--type"
        )
    stated = None if type is None else _parse_type(type)
    place, name = split_place(file)
    if name is not None:
        raise ValueError(
            f"{file} is on the Hub: download it before changing it, with `hf download {place} {name}`"
        )
    old = _read(file)
    types = {} if stated is None else {key: stated for key, _ in pairs}
    known = {key: types.get(key, old.types.get(key, stated_type(key))) for key, _ in pairs}
    values = {key: _parse_value(text, known[key], key) for key, text in pairs}
    _check(values, known, removed)
    with progress_bar("writing") as progress:
        edited = edit_metadata(
            file,
            values,
            removed,
            types=types,
            force=force,
            room=ROOM if room is None else room,
            progress=progress,
        )
    how = "metadata written in place" if edited.in_place else "whole file rewritten"
    note(f"{one_line(str(edited.path))}: {how}.")
    for key in (key for key in values if key not in old):  # in this order
        kind = known[key]
        name = type_name(infer_type(values[key]) if kind is None else kind)
        note(f"{one_line(key)} is new and has type {name}.")


def _check(values: dict[str, Any], known: "dict[str, MetadataType | None]", removed: list[str]) -> None:
    """Check that values fit their types, before the file is opened for writing."""
    from torchgguf.container import GGUFError, Metadata
    from torchgguf.container.encoder import encode_value

    for key, value in values.items():
        if key in removed:
            raise typer.BadParameter(f"{key} must be either set or removed, not both")
        new = Metadata()
        try:
            new.set(key, value, known[key])
            encode_value(new[key], new.types[key])
        except GGUFError as error:
            raise typer.BadParameter(str(error), param_hint="--set") from None


def _parse_value(text: str, value_type: "MetadataType | None", key: str) -> Any:
    """Parse a value of this type; without a type, by the look of the text."""
    from torchgguf.container import ArrayType, ValueType, type_name
    from torchgguf.container.value_types import SCALARS

    if text.startswith("@"):
        text = text[1:] if text.startswith("@@") else _text_of(Path(text[1:]))
    if value_type is ValueType.STRING:
        return text
    try:
        if value_type is None:
            return _guess(text)
        if isinstance(value_type, ArrayType):
            return json.loads(text)
        if value_type is ValueType.BOOL:
            return {"true": True, "false": False}[text.lower()]
        return float(text) if float in SCALARS[value_type].python else int(text)
    except (ValueError, KeyError):
        assert value_type is not None
        raise typer.BadParameter(
            f"{key} must be of type {type_name(value_type)}, got {one_line(text[:60])!r}",
            param_hint="--set",
        ) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a UTF-8 text") from None


def _guess(text: str) -> Any:
    """Return a number, bool or array if the text is one in JSON, or else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if value is None or isinstance(value, dict) else value


def _parse_type(text: str) -> "MetadataType":
    from torchgguf.container.value_types import parse_type

    try:
        return parse_type(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--type") from None
