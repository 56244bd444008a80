"""Finding the GGUF file that a path, or a repository of the Hugging Face Hub, names."""

from glob import escape
from os import PathLike
from pathlib import Path
from typing import TypedDict

from torchgguf.container.shards import shard_names


class HubOptions(TypedDict, total=False):
    """What concerns fetching from a repository: branch, tag or commit; login; where files are kept."""

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


def find_gguf(
    path: str | PathLike[str],
    gguf_file: str | PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the path of a GGUF file: `path` itself, or `gguf_file` in this folder or Hub repository.

    From a repository the file is fetched, and if it is one of a split model, all of that.

    Raises:
        FileNotFoundError: there is no such file; the message names those there are.
        OSError, ValueError: as `huggingface_hub` raises them.
    """
    place = Path(path)
    if gguf_file is not None and not place.exists():
        from huggingface_hub import snapshot_download  # slow to import, and local files need none of it
        from huggingface_hub.errors import HFValidationError

        try:
            folder = snapshot_download(
                str(path),
                allow_patterns=[escape(name) for name in shard_names(str(gguf_file))],
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        except HFValidationError:  # nor can a repository have this name
            raise FileNotFoundError(f"there is no folder {path}") from None
        place = Path(folder)
        if not (place / gguf_file).is_file():
            raise FileNotFoundError(f"there is no file {gguf_file} in the repository {path}")
    file = place if gguf_file is None else place / gguf_file
    if file.is_dir():
        names = ", ".join(sorted(found.name for found in file.glob("*.gguf"))) or "none"
        raise FileNotFoundError(f"{file} is a folder: name a .gguf file in it (there: {names})")
    if not file.exists():
        raise FileNotFoundError(f"there is no file {file}")
    return file
