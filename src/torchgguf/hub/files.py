"""Finding files in a folder or in a repository of the Hugging Face Hub, from which they are fetched."""

import re
from collections.abc import Mapping, Sequence
from glob import escape
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

from torchgguf.container.reading.shards import shard_names
from torchgguf.hub.errors import explained_errors, list_alike

# huggingface_hub is imported where it is used: that takes long, and local files need none of it.

Location: TypeAlias = str | PathLike[str]
_COMMIT = re.compile("[0-9a-f]{40}")


class HubOptions(TypedDict, total=False):
    """What concerns fetching from a repository.

    Attributes:
        revision: branch, tag or commit; `"main"` by default.
        token: to log in with; True: the one that `hf auth login` stored, False: none. By default the stored
            one, if there is one.
        cache_dir: where files are kept; by default where all programs that use huggingface_hub keep them.
        local_files_only: take what has been fetched before, and ask no server.
        force_download: fetch again what has been fetched before.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def find_file(place: Location, *names: str, **options: Unpack[HubOptions]) -> Path:
    """Return the path of the first of `names` that is in this folder or repository.

    Raises:
        FileNotFoundError: there is none of them, or no such place; or it would have to be fetched, which
            `local_files_only` or `HF_HUB_OFFLINE` forbids.
        PermissionError: the Hub wants another login.
        ConnectionError: the Hub cannot be reached, or fails.
        ValueError: the options contradict each other.
    """
    _check(options)
    if (folder := Path(place)).exists():
        for name in names:
            if (file := folder / name).is_file():
                return file
        there = list_alike((path.name for path in folder.glob("*")), names)
        raise FileNotFoundError(f"there is no file {' or '.join(names)} in {place} (there: {there})")

    with explained_errors(str(place), names, options):
        return _fetch_first(str(place), names, options)


def _fetch_first(repository: str, names: Sequence[str], options: HubOptions) -> Path:
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, OfflineModeIsEnabled

    cache, revision = options.get("cache_dir"), options.get("revision")
    kept = {name: try_to_load_from_cache(repository, name, cache, revision) for name in names}
    if options.get("force_download"):
        kept = dict.fromkeys(kept)
    missing: Exception = FileNotFoundError(
        f"there is no file {' or '.join(names)} in the repository {repository} ({revision})"
    )
    for name in names:
        if kept[name] is _CACHED_NO_EXIST and _COMMIT.fullmatch(revision or ""):
            continue  # what a commit has not it never gets
        try:
            return Path(hf_hub_download(repository, name, **options))
        except LocalEntryNotFoundError as error:
            missing = error
            if isinstance(error.__cause__, OfflineModeIsEnabled | None):
                continue
            # The Hub cannot be reached, and need not be asked for the others.
            if path := next((path for path in kept.values() if isinstance(path, str)), None):
                return Path(path)
            break
        except EntryNotFoundError as error:
            missing = error
    raise missing


def find_files(place: Location, names: Sequence[str], **options: Unpack[HubOptions]) -> list[Path]:
    """Return the paths of all of `names`, which from a repository come together and of one commit.

    Raises the same errors as `find_file`.
    """
    if len(names) < 2 or Path(place).exists():
        return [find_file(place, name, **options) for name in names]

    from huggingface_hub import hf_hub_download, snapshot_download

    _check(options)
    with explained_errors(str(place), names[:1], options):
        patterns = [escape(name) for name in names]
        folder = Path(snapshot_download(str(place), allow_patterns=patterns, **options))
    fetched: HubOptions = {**options, "revision": folder.name, "force_download": False}
    paths = []
    for name in names:  # what is there costs no request, and for what is not this says why
        with explained_errors(str(place), [name], options):
            paths.append(Path(hf_hub_download(str(place), name, **fetched)))
    return paths


def find_folder(place: Location, patterns: Sequence[str], **options: Unpack[HubOptions]) -> Path:
    """Return the folder itself, or one with those files of a repository that are like these patterns.

    They come together and of one commit, and may be none. Raises the same errors as `find_file`.
    """
    _check(options)
    if (folder := Path(place)).exists():
        return folder

    from huggingface_hub import snapshot_download

    with explained_errors(str(place), patterns[:1], options):
        return Path(snapshot_download(str(place), allow_patterns=list(patterns), **options))


def find_gguf(place: Location, gguf_file: Location | None = None, **options: Unpack[HubOptions]) -> Path:
    """Return the path of a GGUF file: `place` itself, or `gguf_file` in this folder or repository.

    From a repository the file is fetched, and if it is one of a split model, all of that. Raises the same
    errors as `find_file`.
    """
    _check(options)
    file = Path(place)
    if gguf_file is not None:
        name = str(gguf_file)
        # Whether a split model in a folder is whole will show when it is opened.
        names = [name] if file.exists() else shard_names(name)
        return find_files(place, names, **options)[names.index(name)]
    if file.is_dir():
        there = list_alike((path.name for path in file.glob("*")), ["*.gguf"])
        raise FileNotFoundError(f"{file} is a folder: name a .gguf file in it (there: {there})")
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    return file


def _check(options: Mapping[str, Any]) -> None:
    if unknown := set(options) - HubOptions.__annotations__.keys():
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    if options.get("force_download") and options.get("local_files_only"):
        raise ValueError("force_download=True contradicts local_files_only=True")
