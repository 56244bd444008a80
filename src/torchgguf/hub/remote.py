"""Read the header of a GGUF file in a repository, without downloading the whole file."""

from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from torchgguf.container import GGUFFile, open_gguf
from torchgguf.container.reading.header import Fetch, fetch_header
from torchgguf.container.reading.mapping import Shard
from torchgguf.hub.errors import explained_errors, transport_error
from torchgguf.hub.files import HubOptions, find_gguf, located

# huggingface_hub is imported where it is used, as in `files`.


def open_remote_gguf(repository: str, name: str, **options: Unpack[HubOptions]) -> GGUFFile:
    """Read the header of a GGUF file in a repository; for a split model, those of all its files.

    Accessing a tensor raises a GGUFError. Offline, this opens the file that was downloaded before.

    Args:
        repository: the repository, also by its address on the Hub.
        name: the name of the file in it.
        options: options for downloads.

    Returns:
        The open file, with metadata and descriptions of tensors.

    Raises:
        GGUFError: the file is not valid GGUF.
        FileNotFoundError, PermissionError, ConnectionError: as `find_file`.
    """
    from huggingface_hub import is_offline_mode

    place_of_repository, options = located(repository, options)
    repository = str(place_of_repository)
    if is_offline_mode() or options.get("local_files_only"):
        return open_gguf(find_gguf(repository, name, **options))

    def read(path: str | PathLike[str]) -> Shard:
        place = Path(path)
        own_name = place.as_posix().removeprefix(f"{repository}:")
        with explained_errors(repository, [own_name], options):
            size, fetch = _locate(repository, own_name, options)
            return Shard(place, fetch_header(place, size, fetch), size, None)

    return GGUFFile(f"{repository}:{name}", read)


def _locate(repository: str, name: str, options: HubOptions) -> tuple[int, Fetch]:
    """Return the size of a file in bytes, and a function that downloads its bytes from start to end."""
    import huggingface_hub
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    utils: Any = huggingface_hub.utils  # it loads its names on demand, so mypy does not know them
    token = options.get("token")
    about = get_hf_file_metadata(hf_hub_url(repository, name, revision=options.get("revision")), token=token)
    if about.size is None:
        raise ConnectionError(f"{constants.ENDPOINT} does not report the size of {name} in {repository}")
    url = hf_hub_url(repository, name, revision=about.commit_hash)
    headers = {**utils.build_hf_headers(token=token), "Accept-Encoding": "identity"}

    def read(start: int, end: int) -> bytes:
        ranged = {**headers, "Range": f"bytes={start}-{end - 1}"}
        timeout, data = constants.HF_HUB_DOWNLOAD_TIMEOUT, bytearray()
        with utils.http_stream_backoff("GET", url, headers=ranged, timeout=timeout) as response:
            utils.hf_raise_for_status(response)
            first = start if response.status_code == 206 else 0  # 200: the server does not support ranges
            with suppress(transport_error()):  # bytes before a broken connection are valid
                for piece in response.iter_bytes():
                    data += piece
                    if first + len(data) >= end:
                        break
        return bytes(data[start - first : end - first])

    def fetch(start: int, end: int) -> bytes:
        data = b""
        while start + len(data) < end:
            if not (more := read(start + len(data), end)):
                raise ConnectionError(
                    f"{constants.ENDPOINT} sent fewer bytes of {name} in {repository} than it has"
                )
            data += more
        return data

    return about.size, fetch
