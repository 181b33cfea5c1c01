"""API keys: a file with a line for each, which says whose it is and its SHA-256. The keys themselves are nowhere.

    alice:sha256:9f86d081…0f00a08
    ops:sha256:60303ae2…fca9e752:admin

A key has 256 random bits, so that its hash needs neither salt nor stretching. Empty lines and those that start with
`#` are skipped.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.errors import KeyFileError, SdxlTrtError, UsageError
from sdxl_trt.files import atomic_write
from sdxl_trt.runtime.serve.http.logs import log

PREFIX = "sdxl-trt-"
"""Of every key, so that programs that look for secrets in texts find it."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):sha256:([0-9a-f]{64})(:admin)?")
_MOST_BYTES = 2**20
_Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One line of the file."""

    name: str
    sha256: str
    admin: bool
    """It may do what operators do."""


class Keys:
    """The keys of a file, which is read again when it changes. Where it is wrong then, those from before hold.

    Args:
        path: of the file.

    Raises:
        KeyFileError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._keys = read_keys(path)

    def find(self, secret: str) -> Key | None:
        """Whose a key is. Takes as long whichever it is of those in the file, or none."""
        self._reread()
        given, found = hashlib.sha256(secret.encode()).hexdigest(), None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def _reread(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except SdxlTrtError as error:
            log("keys not read again", logging.ERROR, **error.as_dict())
        else:
            log("keys read again", keys=len(self._keys))


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        KeyFileError: it cannot be read, others may write it, or a line is none of a key.
    """
    try:
        if path.exists() and not path.is_file():
            raise _unusable(path, "no regular file")
        with path.open("rb") as file:
            found, text = os.fstat(file.fileno()), file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (os.geteuid(), 0):
        raise _unusable(path, f"mode {stat.S_IMODE(found.st_mode):03o} of user {found.st_uid}", fix=f"chmod 600 {path}")
    lines = text.decode("ascii", "replace").splitlines()
    keys = [_parse(path, number, line) for number, line in enumerate(map(str.strip, lines), 1) if _counts(line)]
    if len(text) > _MOST_BYTES or not keys:
        raise _unusable(path, f"{len(text)} bytes, {len(keys)} keys")
    return keys


def new_key(path: Path, name: str, *, admin: bool = False) -> str:
    """Make a key and append its hash to a file, which is made where there is none. Returns the key.

    Args:
        path: of the file.
        name: whose the key is to be.
        admin: it may do what operators do.

    Raises:
        UsageError: the name cannot be used, or is taken.
        KeyFileError: the file is there, and cannot be used.
        OutputError: it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "the key's name cannot be used",
            got=repr(name),
            expected="1 to 64 of A-Z a-z 0-9 . _ -",
            fix="--new-key alice",
        )
    lines = path.read_text(encoding="ascii") if path.exists() and read_keys(path) else ""
    if any(line.startswith(f"{name}:") for line in lines.splitlines()):
        raise UsageError(f"{path} has a key of that name", got=name, fix="remove its line first, or take another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:sha256:{hashlib.sha256(secret.encode()).hexdigest()}{':admin' if admin else ''}\n"
    with atomic_write(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write((lines + ("\n" if lines and not lines.endswith("\n") else "") + line).encode())
    return secret


def _counts(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _parse(path: Path, number: int, line: str) -> Key:
    match = _LINE.fullmatch(line)
    if not match:
        raise _unusable(path, f"line {number}, which is none of a key")
    return Key(name=match[1], sha256=match[2], admin=match[3] is not None)


def _stamp(path: Path) -> _Stamp:
    """Differs when the file does."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _unusable(path: Path, got: str, fix: str = "sdxl-trt serve --new-key NAME --keys FILE") -> KeyFileError:
    return KeyFileError(
        f"{path} cannot be used as API keys",
        got=got,
        expected="a file that this user or root alone can write, with lines NAME:sha256:HEX or NAME:sha256:HEX:admin",
        fix=fix,
    )
