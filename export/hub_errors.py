"""What can go wrong with the hub, in our words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from sdxl_trt.errors import CheckpointError, OutputError, SdxlTrtError

_LOG_IN = "`hf auth login`, or set HF_TOKEN"


@contextlib.contextmanager
def in_words(repository: str) -> Iterator[None]:
    """Errors of huggingface_hub, of the network and of the disk become ours.

    Raises:
        CheckpointError: the model cannot be had.
        OutputError: the cache cannot be written.
    """
    try:
        yield
    except (RevisionResolutionError, HFValidationError, httpx2.HTTPError, OSError) as error:
        raise _translated(error, repository) from error


def unreachable(repository: str, got: str) -> CheckpointError:
    """The error for a model that is not all here, without a way to the hub."""
    return CheckpointError(
        f"{repository} is not on this machine, and the hub cannot be reached",
        got=got,
        expected=f"access to {constants.ENDPOINT}; what was fetched already is kept",
        fix="connect (and unset HF_HUB_OFFLINE), or give the folder of a model, or 'demo', which comes with sdxl-trt",
    )


def _translated(error: Exception, repository: str) -> SdxlTrtError:
    match error:
        case GatedRepoError():
            return _gated(repository)
        case RevisionNotFoundError() | RepositoryNotFoundError() | HFValidationError():
            return _unknown(repository, error)
        case RevisionResolutionError() | LocalEntryNotFoundError() | OfflineModeIsEnabled() | httpx2.ConnectError():
            return unreachable(repository, one_line(error.__context__ or error))
        case HfHubHTTPError():
            return _refused(repository, error)
        case OSError(errno=int()):
            return _unwritable(error)
        case _:
            return _cut_off(repository, error)


def _gated(repository: str) -> CheckpointError:
    return CheckpointError(
        f"{repository} is gated: its licence must be accepted first",
        got="a token without access" if get_token() else "no token",
        expected="the token of an account that accepted it",
        fix=f"accept it on {constants.ENDPOINT}/{repository}, then {_LOG_IN}",
    )


def _unknown(repository: str, error: Exception) -> CheckpointError:
    revision = isinstance(error, RevisionNotFoundError)
    return CheckpointError(
        f"{repository} has no such revision"
        if revision
        else f"{repository} is neither a folder or file here, nor a model on {constants.ENDPOINT}",
        got=one_line(error),
        expected="a path, owner/name or owner/name@revision",
        fix=f"check the spelling; for a private model, {_LOG_IN}",
    )


def _refused(repository: str, error: HfHubHTTPError) -> CheckpointError:
    status = error.response.status_code
    return CheckpointError(
        f"the hub did not give {repository}",
        got=one_line(error),
        expected="the files of the model",
        fix=f"check the token: {_LOG_IN}" if status in (401, 403) else "run this again later; what was fetched is kept",
    )


def _cut_off(repository: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"the download of {repository} was cut off",
        got=one_line(error),
        fix="run this again: it goes on where it stopped",
    )


def _unwritable(error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {error.filename or constants.HF_HUB_CACHE}",
        got=error.strerror or str(error),
        expected="a cache that this user may write to, with room for the model",
        fix="make room, or have the cache elsewhere: HF_HOME=DIR",
    )


def one_line(error: BaseException) -> str:
    """The first line of an error: the hub's go on at length."""
    lines = str(error).split("\n")
    return f"{type(error).__name__}: {next(filter(str.strip, lines), '').strip()}"
