"""Read the addresses of the Hub that people paste from their browser."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from torchgguf.container.reading.recognition import is_gguf_file

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_SCHEME = re.compile(r"^https?:/+", re.IGNORECASE)  # a Path drops the second slash
_PAGE = re.compile(
    r"(?P<repository>[\w.-]+(/[\w.-]+)??)"
    r"(/(?P<kind>resolve|blob|raw|tree)/(?P<revision>refs/(pr|convert)/[^/]+|[^/]+)(/(?P<file>.+))?)?"
)
_MAIN = "main"


class HubURL(NamedTuple):
    """What an address of the Hub names.

    Attributes:
        repository: the repository of a model.
        file: a file in it; None for a page of the repository.
        revision: the branch, tag or commit; None if it is the main branch, as in addresses that people copy.
    """

    repository: str
    file: str | None
    revision: str | None

    @property
    def place(self) -> str:
        """The repository, as functions of this package accept it: an address if it has a revision."""
        if self.revision is None:
            return self.repository
        return f"https://{_HOSTS[0]}/{self.repository}/tree/{self.revision}"


def as_written(place: str | PathLike[str]) -> str:
    """Return an address with the second slash that a Path drops, and other texts as they are."""
    return _SCHEME.sub(lambda scheme: f"{scheme[0].rstrip('/')}//", str(place), count=1)


def parse_url(place: str | PathLike[str]) -> HubURL | None:
    """Return what an address of the Hub, or of the host in `HF_ENDPOINT`, names; None for other texts.

    Args:
        place: the text; what follows `?` or `#` is ignored.

    Raises:
        ValueError: it is an address of the Hub, but not that of a model or of its file; or of another host.
    """
    text = as_written(place)
    if (scheme := _SCHEME.match(text)) is None:
        if text.partition("/")[0] not in _HOSTS:
            return None
        scheme_end = 0
    else:
        scheme_end = scheme.end()
    address = urlsplit(f"//{text[scheme_end:]}")
    path, endpoint = address.path, urlsplit(os.environ.get("HF_ENDPOINT", ""))
    if endpoint.netloc and address.netloc.lower() == endpoint.netloc.lower():
        path = path.removeprefix(endpoint.path.rstrip("/"))
    elif address.netloc.lower() not in _HOSTS:
        raise ValueError(f"{text} is not on the Hugging Face Hub: download it, and name the file")
    # Slashes in a revision come encoded, except in those of pull requests.
    page = _PAGE.fullmatch(path.strip("/"))
    if page is None or page["repository"].split("/")[0] in ("datasets", "spaces"):
        raise ValueError(f"{text} is not the address of a model on the Hub, or of a file of it")
    if page["kind"] == "tree" and page["file"]:
        raise ValueError(f"{text} is a folder on the Hub: name a file in it")
    revision = unquote(page["revision"] or _MAIN)
    file = None if page["file"] is None else unquote(page["file"])
    return HubURL(page["repository"], file, None if revision == _MAIN else revision)


def names_gguf_file(place: str | PathLike[str]) -> bool:
    """Return whether a place is a GGUF file: a local one of any name, or the address of one on the Hub.

    Raises:
        OSError: the file is not readable.
        ValueError: as `parse_url`.
    """
    url = parse_url(place)
    if url is None:
        return is_gguf_file(place)
    if url.file is not None and Path(url.file).suffix.lower() != ".gguf":
        raise ValueError(
            f"{as_written(place)} is not a GGUF file: to load a checkpoint, name its repository, "
            f"{url.repository}"
        )
    return url.file is not None
