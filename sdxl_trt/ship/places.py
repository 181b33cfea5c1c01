"""Folders that an image layout can be in: on this machine, and wherever fsspec reaches."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sdxl_trt.errors import SdxlTrtError, TransferError
from sdxl_trt.files import atomic_write
from sdxl_trt.libraries import require
from sdxl_trt.ship.verified import BLOCK, file_blocks


class LocalFiles:
    """A folder of this machine; see `sdxl_trt.ship.layout.Files`."""

    parallel = 4

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, name: str) -> int | None:
        """As of `Files`."""
        try:
            found = (self._folder / name).lstat()
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str) -> Iterator[bytes]:
        """As of `Files`."""
        size = self.size(name)
        try:
            if size is None:
                raise FileNotFoundError(f"there is no file {name}")
            yield from file_blocks(self._folder / name, 0, size)
        except OSError as error:
            raise _failed(f"{self._folder}", error) from error

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """As of `Files`."""
        with atomic_write(self._folder / name) as file:
            for block in blocks:
                file.write(block)

    def close(self, *, failed: bool) -> None:
        """As of `Files`; there is nothing to do."""


class UrlFiles:
    """A folder at a URL; see `sdxl_trt.ship.layout.Files`.

    Raises:
        TransferError: fsspec knows no such URL, or lacks the package for it.
        FlavourUnavailable: fsspec is not installed.
    """

    parallel = 4

    def __init__(self, url: str) -> None:
        fsspec = require("fsspec", "reach folders by URL")
        self._url = url
        with self._in_words():
            self._system, self._root = fsspec.core.url_to_fs(url)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except SdxlTrtError:
            raise
        except Exception as error:  # each kind of URL is a package of its own, which raises what it likes
            raise _failed(self._url, error) from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def size(self, name: str) -> int | None:
        """As of `Files`."""
        with self._in_words():
            try:
                found: dict[str, Any] = self._system.info(self._path(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found.get("type") == "file" else None

    def read(self, name: str) -> Iterator[bytes]:
        """As of `Files`."""
        with self._in_words(), self._system.open(self._path(name), "rb") as file:
            while block := file.read(BLOCK):
                yield block

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """As of `Files`. What fails half-way is deleted; where that fails too, its size shows it."""
        path = self._path(name)
        with self._in_words():
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                with self._system.open(path, "wb") as file:
                    for block in blocks:
                        file.write(block)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._system.rm_file(path)
                raise

    def close(self, *, failed: bool) -> None:
        """As of `Files`; there is nothing to do."""


def _failed(place: str, error: Exception) -> TransferError:
    return TransferError(
        f"{place} cannot be used",
        got=f"{type(error).__name__}: {error}".split("\n")[0],
        expected="an OCI image layout; or for a push a folder that this user may write to",
        fix="check the place and the access to it"
        if not isinstance(error, ImportError)
        else "pip install the package that fsspec names for such URLs (s3fs, gcsfs, adlfs, …)",
    )
