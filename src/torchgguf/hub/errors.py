"""Replace the long errors of huggingface_hub by built-in exceptions with one line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from torchgguf.hub.reachability import alike, check_repository

SHOWN_NAMES = 20
LOGIN = "`hf auth login`, or `token=`"


def list_alike(there: Iterable[str], wanted: Iterable[str]) -> str:
    """List the files that have the same endings as the wanted ones, for messages."""
    endings = {PurePosixPath(name).suffix for name in wanted}
    alike = sorted(name for name in there if PurePosixPath(name).suffix in endings)
    more = f", … {len(alike)} in all" if len(alike) > SHOWN_NAMES else ""
    return (", ".join(alike[:SHOWN_NAMES]) or "none") + more


def transport_error() -> type[Exception]:
    """Return the base class of the errors of the HTTP client that huggingface_hub uses."""
    from huggingface_hub import errors

    base: Any = errors.HfHubHTTPError.__bases__[0]
    kind: type[Exception] = base
    return kind


@contextmanager
def explained_errors(repository: str, names: Sequence[str], options: Mapping[str, Any]) -> Iterator[None]:
    """Replace errors of huggingface_hub by those that `find_file` documents.

    Args:
        repository: the repository, for messages.
        names: the wanted files, for messages.
        options: the `HubOptions` of the request.
    """
    from huggingface_hub import errors

    try:
        check_repository(repository, options)
        yield
    except (errors.EntryNotFoundError, transport_error(), OSError, ValueError) as error:
        if (explained := _explain(error, repository, names, options)) is error:
            raise
        raise explained from error


def _explain(
    error: Exception, repository: str, names: Sequence[str], options: Mapping[str, Any]
) -> Exception:
    from huggingface_hub import constants, errors

    cause = error if error.__cause__ is None or isinstance(error, errors.HfHubHTTPError) else error.__cause__
    revision, file, hub = options.get("revision") or "main", " or ".join(names), constants.ENDPOINT
    not_kept = f"{file} of the repository {repository} ({revision}) has not been downloaded before"
    no_folder = f"; there is no local folder {repository} either{alike(repository)}"
    forbids = (
        f"forbids a download; with access to the Hub, `hf download {repository}` downloads it{no_folder}"
    )
    match cause:
        case errors.HFValidationError():
            return FileNotFoundError(f"there is no folder {repository}{alike(repository)}")
        case errors.GatedRepoError():
            page = f"{hub}/{repository}"
            return PermissionError(f"{repository} is gated: request access at {page}, then log in ({LOGIN})")
        case errors.RepositoryNotFoundError():
            what = f"there is no folder {repository}{alike(repository)}, and no such repository at {hub}"
            return FileNotFoundError(f"{what}; if the repository is private, log in ({LOGIN})")
        case errors.RevisionNotFoundError():
            return FileNotFoundError(f"the repository {repository} has no revision {revision}")
        case errors.RemoteEntryNotFoundError():
            there = list_alike(_files_of(repository, options), names)
            return FileNotFoundError(
                f"there is no file {file} in the repository {repository} (there: {there})"
            )
        case errors.LocalEntryNotFoundError():
            return FileNotFoundError(f"{not_kept}, and local_files_only=True {forbids}")
        case errors.OfflineModeIsEnabled():
            return FileNotFoundError(f"{not_kept}, and HF_HUB_OFFLINE {forbids}")
        case errors.HfHubHTTPError() if cause.response.status_code in (401, 403):
            said = cause.server_message or cause.response.reason_phrase
            return PermissionError(f"{hub} denies access to {repository} with this login: {said} ({LOGIN})")
        case errors.HfHubHTTPError():
            said = f"{cause.response.status_code} {cause.response.reason_phrase}"
            return ConnectionError(f"{hub} failed with {said}, and {not_kept}")
        case _ if type(cause) is ConnectionError:  # raised by this package
            return error
        case _ if not isinstance(cause, OSError | ValueError) or isinstance(cause, ConnectionError):
            said = " ".join(f"{cause}".split()) or type(cause).__name__
            return ConnectionError(f"{hub} is unreachable ({said}), and {not_kept}{no_folder}")
    return error


def _files_of(repository: str, options: Mapping[str, Any]) -> list[str]:
    from huggingface_hub import list_repo_files

    return list_repo_files(repository, revision=options.get("revision"), token=options.get("token"))
