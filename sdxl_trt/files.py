"""Writing files so that nobody ever sees half of one, and hashing them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sdxl_trt.errors import OutputError

TEMPORARY_PREFIX = ".sdxl-trt-tmp-"
"""Names that start so are unfinished; whoever holds the lock of a folder deletes them, so they must be ours alone."""

LOCK_NAME = ".lock"
"""The file whose lock a folder's writer holds; it stays."""


def temporary_in(folder: Path) -> Path:
    """A name for an unfinished file. It is known before the file is there: an interrupt comes between any two lines."""
    return folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path`, whole, when the block ends, and not at all if it fails.

    Raises:
        OutputError: the folder does not exist and cannot be made, or cannot be written to, or is full.
    """
    temporary = temporary_in(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Be the only writer of a folder, which is made; what writers that were killed left unfinished is removed.

    Raises:
        OutputError: another process is writing it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        _lock(descriptor, folder)
        for leftover in folder.rglob(TEMPORARY_PREFIX + "*"):
            leftover.unlink()
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another process is writing {folder}",
            expected="one writer at a time",
            fix="wait for it, or choose another folder with -o",
        ) from error


def no_links(path: str, flags: int) -> int:
    """An opener that takes regular files alone: no symbolic link, and no pipe, which would be waited for."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        reason = "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
        raise OSError(errno.EINVAL, reason, path)
    return descriptor


def why_unreadable(error: OSError) -> str:
    """What `no_links` met, in words."""
    return "a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written to, before minutes of work rather than after.

    Raises:
        OutputError: the nearest folder above that exists is none, or not writable.
    """
    folder = nearest_existing(path.absolute().parent)
    if not folder.is_dir():
        raise unwritable(path, NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder"))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError(errno.EACCES, f"{folder} is not writable"))


def nearest_existing(path: Path) -> Path:
    """An absolute path, or the nearest above it that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), path)


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error for a place that cannot be written."""
    return OutputError(
        f"cannot write {path}",
        got=error.strerror or str(error),
        expected="a folder that this user may write to, with room for what is written",
        fix="choose another place",
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys and a final newline, atomically."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
