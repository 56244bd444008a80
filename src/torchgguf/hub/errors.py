"""What can go wrong while fetching, as built-in errors of one line, where huggingface_hub has many lines."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

SHOWN_NAMES = 20
LOGIN = "`hf auth login`, or `token=`"


def list_alike(there: Iterable[str], wanted: Iterable[str]) -> str:
    """Name the files that end as the wanted ones do."""
    endings = {PurePosixPath(name).suffix for name in wanted}
    alike = sorted(name for name in there if PurePosixPath(name).suffix in endings)
    more = f", … {len(alike)} in all" if len(alike) > SHOWN_NAMES else ""
    return (", ".join(alike[:SHOWN_NAMES]) or "none") + more


def transport_error() -> type[Exception]:
    """Return the base of the errors of whichever HTTP client huggingface_hub is built on."""
    from huggingface_hub import errors

    base: Any = errors.HfHubHTTPError.__bases__[0]
    kind: type[Exception] = base
    return kind


@contextmanager
def explained_errors(repository: str, names: Sequence[str], options: Mapping[str, Any]) -> Iterator[None]:
    """Replace huggingface_hub's errors by those that `find_file` promises."""
    from huggingface_hub import errors

    try:
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
    not_kept = f"{file} of the repository {repository} ({revision}) has not been fetched before"
    no_folder = f"; nor is there a folder {repository}"
    forbids = f"forbids it; where the Hub may be asked, `hf download {repository}` fetches it{no_folder}"
    match cause:
        case errors.HFValidationError():
            return FileNotFoundError(f"there is no folder {repository}")
        case errors.GatedRepoError():
            page = f"{hub}/{repository}"
            return PermissionError(f"{repository} is gated: ask for access at {page}, then log in ({LOGIN})")
        case errors.RepositoryNotFoundError():
            what = f"there is no folder {repository}, and no such repository at {hub}"
            return FileNotFoundError(f"{what}; if it is a private one, log in ({LOGIN})")
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
            return PermissionError(f"{hub} refuses {repository} to this login: {said} ({LOGIN})")
        case errors.HfHubHTTPError():
            said = f"{cause.response.status_code} {cause.response.reason_phrase}"
            return ConnectionError(f"{hub} fails with {said}, and {not_kept}")
        case _ if type(cause) is ConnectionError:  # our own words
            return error
        case _ if not isinstance(cause, OSError | ValueError) or isinstance(cause, ConnectionError):
            said = " ".join(f"{cause}".split()) or type(cause).__name__
            return ConnectionError(f"{hub} cannot be reached ({said}), and {not_kept}{no_folder}")
    return error


def _files_of(repository: str, options: Mapping[str, Any]) -> list[str]:
    from huggingface_hub import list_repo_files

    return list_repo_files(repository, revision=options.get("revision"), token=options.get("token"))
