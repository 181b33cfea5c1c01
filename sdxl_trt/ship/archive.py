"""An image layout in a .tar, read without unpacking it and written under another name until it is whole."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from sdxl_trt.errors import TransferError
from sdxl_trt.files import temporary_in, unwritable
from sdxl_trt.ship.layout import INDEX_NAME, MARKER, Layout
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.verified import file_blocks

_NAME = re.compile(rf"(\./)?(?P<name>{MARKER}|{INDEX_NAME}|blobs/sha256/[0-9a-f]{{64}})")
_FOLDER = re.compile(r"\.?/?|(\./)?blobs(/sha256)?/?")
_MOST_MEMBERS = 200_000
_MOST_HEADER = 2**16
"""Bytes of one read while headers are looked for: Python's own reader takes extended headers of any size."""


def open_archive(reference: Reference, *, write: bool) -> Layout:
    """The layout in an archive.

    Raises:
        TransferError: it is no .tar, or holds what no image layout holds.
        OutputError: it cannot be written.
    """
    path = Path(reference.place)
    return Layout(ArchiveWriter(path) if write else ArchiveReader(path), reference)


class _Bounded(io.RawIOBase):
    """A file of which nobody reads much at once, nor before its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class ArchiveReader:
    """The files of a layout in a .tar; see `sdxl_trt.ship.layout.Files`."""

    parallel = 4

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._members = _members(file, os.fstat(file.fileno()).st_size)
        except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
            raise _refused(path, str(error)) from error

    def size(self, name: str) -> int | None:
        """As of `Files`."""
        return self._members[name][1] if name in self._members else None

    def read(self, name: str) -> Iterator[bytes]:
        """As of `Files`."""
        if name not in self._members:
            raise _refused(self._path, f"no {name}")
        try:
            yield from file_blocks(self._path, *self._members[name])
        except OSError as error:
            raise _refused(self._path, str(error)) from error

    def write(self, name: str, blocks: Iterable[bytes]) -> None:  # noqa: ARG002
        """Archives that are there are not written to."""
        raise TransferError(f"{self._path} was opened for reading", got=f"{name} to be written")

    def close(self, *, failed: bool) -> None:
        """As of `Files`; there is nothing to do."""


def _members(file: BinaryIO, size: int) -> dict[str, tuple[int, int]]:
    """Where each file of the layout is: offset and size in bytes.

    Raises:
        tarfile.TarError: something else is in the archive than a layout has.
    """
    found: dict[str, tuple[int, int]] = {}
    last = -1
    with tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:
        for number, member in enumerate(archive):
            if member.offset <= last or number >= _MOST_MEMBERS:
                raise tarfile.ReadError("members without end")
            last = member.offset
            match = _NAME.fullmatch(member.name)
            if member.isdir() and _FOLDER.fullmatch(member.name):
                continue
            if match is None or member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise tarfile.ReadError(f"a member {member.name!r:.100} of type {member.type!r}")
            if match["name"] in found:
                raise tarfile.ReadError(f"{match['name']} stands in it twice")
            if member.size < 0 or member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{match['name']} ends behind the archive's own end")
            found[match["name"]] = member.offset_data, member.size
            archive.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
    return found


def _refused(path: Path, got: str) -> TransferError:
    return TransferError(
        f"{path} cannot be used",
        got=got,
        expected="an OCI image layout as an uncompressed .tar, which `sdxl-trt ship push` or `skopeo copy` wrote",
        fix="check the path; if it is right, fetch or write the archive again",
    )


class ArchiveWriter:
    """Makes a .tar, one file behind the other; see `sdxl_trt.ship.layout.Files`."""

    parallel = 1

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_in(path.parent)
        self._sizes: dict[str, int] = {}
        with self._in_words():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("xb")

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._path, error) from error

    def size(self, name: str) -> int | None:
        """As of `Files`."""
        return self._sizes.get(name)

    def read(self, name: str) -> Iterator[bytes]:
        """What is being written is not read."""
        raise TransferError(f"{self._path} was opened for writing", got=f"{name} to be read")
        yield b""

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """As of `Files`. The header comes first, and the size with it, so it is written again when that is known."""
        with self._in_words():
            start = self._file.tell()
            self._file.write(bytes(tarfile.BLOCKSIZE))
            size = sum(map(self._file.write, blocks))
            self._file.write(bytes(-size % tarfile.BLOCKSIZE))
            end = self._file.tell()
            self._file.seek(start)
            self._file.write(_header(name, size))
            self._file.seek(end)
            self._sizes[name] = size

    def close(self, *, failed: bool) -> None:
        """Give the archive its name; or remove it."""
        with self._in_words(), self._file:
            if failed:
                self._temporary.unlink(missing_ok=True)
                return
            self._file.write(bytes(2 * tarfile.BLOCKSIZE))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._temporary.replace(self._path)


def _header(name: str, size: int) -> bytes:
    """One block; the same for the same content, whoever writes it and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.GNU_FORMAT)
