"""Find files in a folder or in a repository of the Hugging Face Hub, and download them from there."""

import re
from collections.abc import Sequence
from glob import escape
from os import PathLike
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

from torchgguf.container.reading.shards import shard_names
from torchgguf.hub.errors import explained_errors, list_alike
from torchgguf.hub.reachability import alike
from torchgguf.hub.urls import as_written, parse_url

# huggingface_hub is imported where it is used: importing it is slow, and local files do not need it.

Location: TypeAlias = str | PathLike[str]
_COMMIT = re.compile("[0-9a-f]{40}")


class HubOptions(TypedDict, total=False):
    """Options for downloads from a repository.

    Attributes:
        revision: a branch, tag or commit; by default `"main"`.
        token: the token for the login; True requires the one that `hf auth login` stored, False uses none.
            By default the stored one is used if it exists.
        cache_dir: the folder for downloaded files; by default the common cache of huggingface_hub.
        local_files_only: use only files that were downloaded before, without a request.
        force_download: download files again that were downloaded before.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


def find_file(place: Location, *names: str, **options: Unpack[HubOptions]) -> Path:
    """Return the path of the first of several files that exists in a folder or repository.

    Args:
        place: the folder or repository, also by its address on the Hub.
        names: names of files in it, in order of preference.
        options: options for downloads.

    Returns:
        The path of the file; one from a repository is downloaded.

    Raises:
        FileNotFoundError: there is no such file, folder or repository; or `local_files_only` or
            `HF_HUB_OFFLINE` forbids the download.
        PermissionError: the login has no access.
        ConnectionError: the Hub is unreachable or failed.
        TypeError: an option is unknown.
        ValueError: the options contradict each other, or `place` is the address of something else.
    """
    place, options = located(place, options)
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
            continue  # the files of a commit never change
        try:
            return Path(hf_hub_download(repository, name, **options))
        except LocalEntryNotFoundError as error:
            missing = error
            if isinstance(error.__cause__, OfflineModeIsEnabled | None):
                continue
            # The Hub is unreachable: do not wait for the other files, use one from the cache.
            if path := next((path for path in kept.values() if isinstance(path, str)), None):
                return Path(path)
            break
        except EntryNotFoundError as error:
            missing = error
    raise missing


def find_files(place: Location, names: Sequence[str], **options: Unpack[HubOptions]) -> list[Path]:
    """Return the paths of several files; from a repository they belong to the same commit.

    Args:
        place: the folder or repository.
        names: names of files in it.
        options: options for downloads.

    Returns:
        The paths, in the order of `names`.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, TypeError, ValueError: as `find_file`.
    """
    place, options = located(place, options)
    if len(names) < 2 or Path(place).exists():
        return [find_file(place, name, **options) for name in names]

    from huggingface_hub import hf_hub_download, snapshot_download

    with explained_errors(str(place), names[:1], options):
        patterns = [escape(name) for name in names]
        folder = Path(snapshot_download(str(place), allow_patterns=patterns, **options))
    fetched: HubOptions = {**options, "revision": folder.name, "force_download": False}
    paths = []
    for name in names:  # cached files need no request, and missing ones raise the right error
        with explained_errors(str(place), [name], options):
            paths.append(Path(hf_hub_download(str(place), name, **fetched)))
    return paths


def find_folder(place: Location, patterns: Sequence[str], **options: Unpack[HubOptions]) -> Path:
    """Return a local folder: `place` itself, or a copy of a repository with the files that match patterns.

    Args:
        place: the folder or repository.
        patterns: glob patterns of files to download; they may match nothing.
        options: options for downloads.

    Returns:
        The folder; files from a repository belong to the same commit.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, TypeError, ValueError: as `find_file`.
    """
    place, options = located(place, options)
    if (folder := Path(place)).exists():
        return folder

    from huggingface_hub import snapshot_download

    with explained_errors(str(place), patterns[:1], options):
        return Path(snapshot_download(str(place), allow_patterns=list(patterns), **options))


def find_gguf(place: Location, gguf_file: Location | None = None, **options: Unpack[HubOptions]) -> Path:
    """Return the path of a GGUF file.

    Args:
        place: the file itself, also by its address on the Hub; or a folder or repository with `gguf_file` in
            it.
        gguf_file: the name of the file in `place`.
        options: options for downloads.

    Returns:
        The path; from a repository all files of a split model are downloaded.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, TypeError, ValueError: as `find_file`.
    """
    if gguf_file is None and (url := parse_url(place)) is not None and url.file is not None:
        place, gguf_file = url.place, url.file
    place, options = located(place, options)
    file = Path(place)
    if gguf_file is not None:
        name = str(gguf_file)
        # Opening a split model in a folder checks that all its files exist.
        names = [name] if file.exists() else shard_names(name)
        return find_files(place, names, **options)[names.index(name)]
    if file.is_dir():
        there = list_alike((path.name for path in file.glob("*")), ["*.gguf"])
        raise FileNotFoundError(f"{file} is a folder: name a .gguf file in it (there: {there})")
    if not file.exists():
        raise FileNotFoundError(f"there is no file {place}{alike(str(place))}")
    return file


def located(place: Location, options: HubOptions) -> tuple[Location, HubOptions]:
    """Check options, and replace the address of a repository by its name and its revision.

    Args:
        place: a path, or a repository or its address.
        options: options for downloads.

    Returns:
        The path or name, and the options with the revision.

    Raises:
        TypeError: an option is unknown.
        ValueError: the options contradict each other or the address, or it is that of a file.
    """
    if unknown := set(options) - HubOptions.__annotations__.keys():
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    if options.get("force_download") and options.get("local_files_only"):
        raise ValueError("force_download=True contradicts local_files_only=True")
    if (url := parse_url(place)) is None:
        return place, options
    if url.file is not None:
        raise ValueError(f"{as_written(place)} is a file on the Hub: name its repository, {url.repository}")
    if url.revision is None:
        return url.repository, options
    if options.get("revision") not in (None, url.revision):
        raise ValueError(
            f"revision={options.get('revision')!r} contradicts the revision in {as_written(place)}"
        )
    return url.repository, {**options, "revision": url.revision}
