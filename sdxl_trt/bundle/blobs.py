"""Files by content. Nothing is handed out before its size and hash are checked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from sdxl_trt.bundle.manifest import MANIFEST_NAME, Blob
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import LOCK_NAME, exclusive, no_links, temporary_in, unwritable, why_unreadable


class HashingWriter:
    """Counts and hashes what goes through it into a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`; returns its length in bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        size = len(view)
        while len(view):
            view = view[os.write(self._descriptor, view) :]
        self.bytes += size
        return size

    def blob(self) -> Blob:
        """Name of what was written so far."""
        return Blob(sha256=self._hash.hexdigest(), bytes=self.bytes)


class BlobStore:
    """The blobs of one bundle folder."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.folder = bundle / "blobs" / "sha256"
        self.digests = dict[Blob, list[bytes]]()
        """SHA-256 of each chunk of blobs that were checked (see `sdxl_trt.bundle.checked`)."""
        self._verified = dict[Blob, tuple[int, ...]]()

    def path(self, blob: Blob) -> Path:
        """Where the blob lies, checked or not."""
        return self.folder / blob.sha256

    def has(self, blob: Blob) -> bool:
        """A regular file of the right size is there (its hash is not looked at)."""
        try:
            found = self.path(blob).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == blob.bytes

    def verify(self, blob: Blob, what: str) -> Path:
        """Check a blob from end to end, unless it was found sound and not written since; return its path.

        Raises:
            BundleError: it is missing, a link, of another size, or its bytes are not those of its hash.
        """
        path = self.path(blob)
        try:
            with open(path, "rb", opener=no_links) as file:
                found = os.fstat(file.fileno())
                if found.st_size != blob.bytes:
                    raise damaged(what, path, f"{found.st_size} bytes", f"{blob.bytes} bytes")
                state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
                if self._verified.get(blob) == state:
                    return path
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise damaged(what, path, why_unreadable(error), f"a file of {blob.bytes} bytes") from error
        if digest != blob.sha256:
            raise damaged(what, path, f"content with SHA-256 {digest}", f"SHA-256 {blob.sha256}")
        self._verified[blob] = state
        return path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer; leftovers of writers that died are removed on entry.

        Raises:
            OutputError: somebody else is building into this folder, it cannot be written, or it holds other things:
                a build deletes the blobs it does not name, and an OCI image layout keeps its own in such a folder too.
        """
        blobs = self.folder.is_dir() and any(self.folder.iterdir())
        if blobs and not any((self.bundle / name).exists() for name in (MANIFEST_NAME, LOCK_NAME)):
            raise OutputError(
                f"{self.bundle} is not a bundle and holds files of somebody else",
                got=f"{self.folder} without {MANIFEST_NAME}",
                expected="a bundle, or a folder without blobs",
                fix="choose another place with -o",
            )
        with exclusive(self.bundle):
            self.folder.mkdir(parents=True, exist_ok=True)
            yield

    @contextlib.contextmanager
    def writer(self) -> Iterator[HashingWriter]:
        """Write a new blob; it gets its name when the block ends, and nothing stays if the block fails.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        with self._temporary() as (descriptor, temporary):
            writer = HashingWriter(descriptor)
            yield writer
            self._finish(descriptor, temporary, writer.blob())

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        """A file of no name yet, gone when the block ends unless it was renamed."""
        temporary = temporary_in(self.folder)
        try:
            try:
                with temporary.open("x+b", buffering=0) as file:
                    yield file.fileno(), temporary
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _finish(self, descriptor: int, temporary: Path, blob: Blob) -> None:
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o644)
        temporary.replace(self.path(blob))

    def put_bytes(self, data: bytes) -> Blob:
        """Store `data`; returns its name."""
        with self.writer() as writer:
            writer.write(data)
        return writer.blob()

    def put_file(self, source: Path) -> Blob:
        """Store a copy of `source`, sharing its disk blocks where the file system can (reflink on btrfs, XFS).

        The name is that of the copy: a source that changes meanwhile cannot get a name that is not its content's.

        Raises:
            OSError: `source` cannot be opened.
            OutputError: the folder cannot be written to, or the disk is full.
        """
        with source.open("rb") as file, self._temporary() as (descriptor, temporary):
            _copy(file, descriptor)
            with temporary.open("rb") as copy:
                digest = hashlib.file_digest(copy, "sha256").hexdigest()
            blob = Blob(sha256=digest, bytes=os.fstat(descriptor).st_size)
            self._finish(descriptor, temporary, blob)
        return blob

    def keep_only(self, blobs: Iterable[Blob]) -> int:
        """Delete every other blob; returns the bytes freed. The caller holds the lock."""
        wanted = {blob.sha256 for blob in blobs}
        freed = 0
        for path in self.folder.iterdir():
            if path.name not in wanted:
                freed += path.lstat().st_size
                path.unlink()
        return freed


def _copy(source: BinaryIO, descriptor: int) -> None:
    """Copy a file's bytes inside the kernel, which shares the blocks where the file system can (btrfs, XFS)."""
    try:
        while os.copy_file_range(source.fileno(), descriptor, 2**30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        with os.fdopen(os.dup(descriptor), "wb") as copy:
            shutil.copyfileobj(source, copy)


def damaged(what: str, path: Path, got: str, expected: str) -> BundleError:
    """The error for a file that is not what its name says."""
    return BundleError(
        f"{what} is damaged or was altered: {path}",
        got=got,
        expected=expected,
        fix="fetch or build the bundle again",
    )
