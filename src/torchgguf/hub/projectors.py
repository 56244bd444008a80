"""Find the projectors beside GGUF files of models: parts for images and sound, in files of their own."""

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Unpack

from torchgguf.hub.errors import transport_error
from torchgguf.hub.files import HubOptions, Location, located
from torchgguf.hub.urls import parse_url

# huggingface_hub is imported where it is used, as in `files`.

_SECONDS = 5  # to wait for the list of files: the model works without it


def is_projector(name: str) -> bool:
    """Return whether a file is a projector, by its name, such as `mmproj-F16.gguf`."""
    base = PurePosixPath(name).name.lower()
    return "mmproj" in base and base.endswith(".gguf")


def find_projectors(
    place: Location, gguf_file: Location | None = None, **options: Unpack[HubOptions]
) -> list[str]:
    """Return the names of the projectors beside a GGUF file, if they can be found out.

    Args:
        place: as in `find_gguf`.
        gguf_file: as in `find_gguf`.
        options: options for downloads.

    Returns:
        The names, sorted. There are none beside a projector, offline, or if the Hub does not answer in time.
    """
    if gguf_file is None and (url := parse_url(place)) is not None and url.file is not None:
        place, gguf_file = url.place, url.file
    own = str(place if gguf_file is None else gguf_file)
    if is_projector(own):
        return []
    with suppress(OSError, ValueError, transport_error()):
        place, options = located(place, options)
        path = Path(place) if gguf_file is None else Path(place) / gguf_file
        if Path(place).exists():
            names = [each.name for each in path.parent.iterdir() if each.is_file()]
        else:
            names = _names_in_repository(str(place), options)
        return sorted(name for name in names if is_projector(name))
    return []


def _names_in_repository(repository: str, options: HubOptions) -> list[str]:
    from huggingface_hub import HfApi, is_offline_mode

    if is_offline_mode() or options.get("local_files_only"):
        return []
    revision = options.get("revision") or "main"
    about = HfApi(token=options.get("token")).model_info(repository, revision=revision, timeout=_SECONDS)
    return [file.rfilename for file in about.siblings or ()]
