"""Decide whether to ask the Hub for a place that does not exist: often a path is only misspelled."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

# Files of models; no repository is called so.
_FILES = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json")


def check_repository(repository: str, options: Mapping[str, Any]) -> None:
    """Check that a text may be the name of a repository, and that the Hub answers.

    The client of the Hub repeats failed requests for half a minute, file by file. Something that was never
    downloaded is asked for once before: it may be a local path with a typing error.

    Args:
        repository: the text.
        options: the `HubOptions` of the request.

    Raises:
        FileNotFoundError: it is the name of a file.
        Exception: that of the client, if the name is invalid or the Hub is unreachable.
    """
    from huggingface_hub import constants, get_session, is_offline_mode
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    check_not_a_file(repository)
    validate_repo_id(repository)
    if is_offline_mode() or options.get("local_files_only"):
        return
    cache = Path(options.get("cache_dir") or constants.HF_HUB_CACHE)
    if not (cache / f"models--{repository.replace('/', '--')}").exists():
        address = f"{constants.ENDPOINT}/api/models/{repository}"
        get_session().head(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def check_not_a_file(place: str) -> None:
    """Check that a text, at which there is nothing, is not spelled as a file.

    Raises:
        FileNotFoundError: it is.
    """
    if Path(place).suffix.lower() in _FILES:
        raise FileNotFoundError(f"there is no file {place}{alike(place)}")


def alike(place: str) -> str:
    """Return a question for messages, if there is a file or folder of nearly this name, or else nothing."""
    path = Path(place)
    try:
        names = [each.name for each in path.parent.iterdir()]
    except OSError:
        return ""
    found = get_close_matches(path.name, names, 1, 0.7)
    return f" (did you mean {path.with_name(found[0])}?)" if found else ""
