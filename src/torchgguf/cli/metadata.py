"""`torchgguf metadata`: the metadata of a GGUF file shown, set and removed."""

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
    typer.Argument(metavar="FILE", help=f"{GGUF_HELP} What is on the Hub can be shown, and not changed."),
]
_Key = Annotated[str | None, typer.Argument(metavar="KEY", help="Show the value of this key alone.")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a value; repeatable. Arrays are JSON; @NAME takes what the file NAME holds, @@ is a @.",
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
        help="Type of the value to set, such as uint32, string or [float32]; by default the one that the key "
        "has, or for a new key the one that the format states, or else what the value looks like.",
    ),
]
_Force = Annotated[bool, typer.Option("--force", help="Also do what may leave a file that nothing can load.")]
_Room = Annotated[
    int | None,
    typer.Option(
        "--room",
        min=0,
        help="Bytes to leave for later edits where the file must be written anew.",
        show_default="16384",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="For programs; arrays in full.")]


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

    Where the changed metadata fit before the tensors, only they are written; otherwise the whole file is,
    and has room then for the next change. If the process dies meanwhile, no more than this change is lost:
    the next `torchgguf metadata` restores what an unfinished one has left.
    """
    if not set and not remove:
        if type is not None or force or room is not None:
            raise typer.BadParameter("--type, --force and --room are for --set and --remove")
        _show(file, key, as_json)
    elif key is not None or as_json:
        raise typer.BadParameter("either show or change: not both at once")
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
        note(f"{one_line(file)}: a change that was not finished has been undone.")
    with open_header(file) as gguf:
        return gguf.metadata


def _for_terminal(text: str) -> str:
    """A file's strings must not steer the terminal; programs get them as they are."""
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
            "it is for one --set; change keys of other types one by one", param_hint="--type"
        )
    stated = None if type is None else _parse_type(type)
    place, name = split_place(file)
    if name is not None:
        raise ValueError(f"{file} is on the Hub: fetch it to change it, with `hf download {place} {name}`")
    old = _read(file)
    types = {} if stated is None else {key: stated for key, _ in pairs}
    known = {key: types.get(key, old.types.get(key, stated_type(key))) for key, _ in pairs}
    values = {key: _parse_value(text, known[key], key) for key, text in pairs}
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
    how = "metadata written in place" if edited.in_place else "written anew, tensors and all"
    note(f"{one_line(str(edited.path))}: {how}.")
    for key in (key for key in values if key not in old):  # in their order
        kind = known[key]
        name = type_name(infer_type(values[key]) if kind is None else kind)
        note(f"{one_line(key)} is new, and of type {name}.")


def _parse_value(text: str, value_type: "MetadataType | None", key: str) -> Any:
    """Read a value of a type; of a new key without one, whatever the text looks like."""
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
            f"{key} is of type {type_name(value_type)}, and {one_line(text[:60])!r} is not",
            param_hint="--set",
        ) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None


def _guess(text: str) -> Any:
    """A number, true, false or an array if it is one in JSON, else the text itself."""
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
