"""Files by content. Nothing is handed out before its size and hash are checked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sdxl_trt.bundle.chunking import AVERAGE, Chunker
from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.bundle.copying import copy, link_or_copy
from sdxl_trt.bundle.manifest import MANIFEST_NAME
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import LOCK_NAME, exclusive, no_links, sha256_of, temporary_in, unwritable, why_unreadable

_BLOCK = 2**24


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
    """The blobs of one bundle folder.

    Args:
        bundle: the folder.
        average: bytes of the chunks that blobs are cut into, about.
    """

    def __init__(self, bundle: Path, *, average: int = AVERAGE) -> None:
        self.bundle, self._average = bundle, average
        self.folder = bundle / "blobs" / "sha256"
        self.digests = dict[Blob, list[str]]()
        """SHA-256 of each part of blobs that are not cut and were checked (see `sdxl_trt.bundle.checked`)."""
        self._verified = dict[str, tuple[int, ...]]()

    def path(self, content: Chunk) -> Path:
        """Where a whole blob or a chunk lies, checked or not, there or not."""
        return self.folder / content.sha256

    def whole(self, content: Chunk) -> bool:
        """A regular file of that name and the right size is there (its hash is not looked at)."""
        try:
            found = self.path(content).lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == content.bytes

    def missing(self, content: Chunk) -> tuple[Chunk, ...]:
        """What is not there of a blob that is not whole: those of its chunks; of one that is not cut, itself."""
        return () if self.whole(content) else tuple(part for part in content.parts if not self.whole(part))

    def has(self, content: Chunk) -> bool:
        """It is there, whole or in chunks, as far as names and sizes tell."""
        return not self.missing(content)

    def verify(self, content: Chunk, what: str) -> Path:
        """Check a whole blob from end to end, unless it was found sound and not written since; return its path.

        Raises:
            BundleError: it is missing, a link, of another size, or its bytes are not those of its hash.
        """
        path = self.path(content)
        with self._opened(content, what) as file:
            found = os.fstat(file.fileno())
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if self._verified.get(content.sha256) != state:
                _compare(content, hashlib.file_digest(file, "sha256").hexdigest(), what, path)
                self._verified[content.sha256] = state
        return path

    def read(self, chunk: Chunk, what: str) -> bytes:
        """All bytes of a chunk, checked.

        Raises:
            BundleError: as of `verify`.
        """
        with self._opened(chunk, what) as file:
            data = file.read()
        _compare(chunk, hashlib.sha256(data).hexdigest(), what, self.path(chunk))
        return data

    def check(self, blob: Blob, what: str) -> None:
        """Check a blob from end to end, whole or in chunks.

        Raises:
            BundleError: as of `verify`; or its chunks, one behind the other, are not what its own hash says.
        """
        if not blob.chunks or self.whole(blob):
            self.verify(blob, what)
            return
        digest = hashlib.sha256()
        for chunk in blob.chunks:
            digest.update(self.read(chunk, what))
        _compare(blob, digest.hexdigest(), what, self.path(blob))

    @contextlib.contextmanager
    def _opened(self, content: Chunk, what: str) -> Iterator[io.BufferedReader]:
        path = self.path(content)
        try:
            with open(path, "rb", opener=no_links) as file:
                size = os.fstat(file.fileno()).st_size
                if size != content.bytes:
                    raise damaged(what, path, f"{size} bytes", f"{content.bytes} bytes")
                yield file
        except OSError as error:
            raise damaged(what, path, why_unreadable(error), f"a file of {content.bytes} bytes") from error

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
        """Write a new blob, whole; it gets its name when the block ends, and nothing stays if the block fails.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        with self._temporary() as (descriptor, temporary):
            writer = HashingWriter(descriptor)
            yield writer
            self._finish(descriptor, temporary, writer.blob())

    @contextlib.contextmanager
    def chunk_writer(self, others: Sequence[BlobStore] = ()) -> Iterator[Chunker]:
        """Write a new blob in chunks. Those that are there already stay; new ones go again if the block fails.

        Args:
            others: bundles whose chunks are linked rather than written again.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
            FlavourUnavailable: the library that cuts is not installed.
        """
        new = list[Chunk]()

        def keep(chunk: Chunk, data: memoryview) -> None:
            if self._sound(chunk):
                return
            new.append(chunk)
            self.path(chunk).unlink(missing_ok=True)
            if not self.adopt(chunk, others):
                with self.writer() as writer:
                    writer.write(data)

        chunker = Chunker(keep, average=self._average)
        try:
            yield chunker
            chunker.blob()
        except BaseException:
            for chunk in new:
                self.path(chunk).unlink(missing_ok=True)
            raise

    def _sound(self, chunk: Chunk) -> bool:
        try:
            self.verify(chunk, "a chunk")
        except BundleError:
            return False
        return True

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
            copy(file, descriptor)
            blob = Blob(sha256=sha256_of(temporary), bytes=os.fstat(descriptor).st_size)
            self._finish(descriptor, temporary, blob)
        return blob

    def name_chunks(self, blob: Blob) -> Blob:
        """A blob that is there whole, with its chunks, if it is larger than one; it stays whole.

        Raises:
            BundleError: as of `verify`.
            FlavourUnavailable: the library that cuts is not installed.
        """
        if blob.chunks or blob.bytes <= self._average or not self.whole(blob):
            return blob
        what, chunker = "a file of the bundle", Chunker(average=self._average)
        with self._opened(blob, what) as file:
            while data := file.read(_BLOCK):
                chunker.write(data)
        _compare(blob, chunker.blob().sha256, what, self.path(blob))
        return chunker.blob()

    def join(self, blob: Blob, what: str) -> Path:
        """Make a blob whole of its chunks, which stay; return its path. One that is whole already is checked.

        Raises:
            BundleError: as of `check`.
            OutputError: the folder cannot be written to, or the disk is full.
        """
        if blob.chunks and not self.whole(blob):
            with self.writer() as writer:
                for chunk in blob.chunks:
                    writer.write(self.read(chunk, what))
                _compare(blob, writer.blob().sha256, what, self.path(blob))
        return self.verify(blob, what)

    def adopt(self, content: Chunk, others: Iterable[BlobStore]) -> bool:
        """Take what is missing of a blob or chunk from other bundles, as far as they have it: linked, or else copied.

        Each file's hash is checked before it gets its name here.

        Returns:
            Whether it is here now, whole or in chunks.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        others = list(others)
        if self.missing(content) and not any(self._take(other, content) for other in others):
            for part in self.missing(content):
                any(self._take(other, part) for other in others)
        return self.has(content)

    def _take(self, other: BlobStore, content: Chunk) -> bool:
        """Take one file of another bundle, if it is there and sound."""
        if not other.whole(content):
            return False
        temporary = temporary_in(self.folder)
        try:
            if not link_or_copy(other.path(content), temporary) or sha256_of(temporary) != content.sha256:
                return False
            temporary.replace(self.path(content))
        except OSError as error:
            raise unwritable(self.folder, error) from error
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def keep_only(self, blobs: Iterable[Blob]) -> int:
        """Delete every other file, and chunks of what is whole; returns the bytes freed. The caller holds the lock."""
        wanted = {part.sha256 for blob in blobs for part in ((blob,) if self.whole(blob) else blob.parts)}
        freed = 0
        for path in self.folder.iterdir():
            if path.name not in wanted:
                found = path.lstat()
                freed += found.st_size if found.st_nlink == 1 else 0
                path.unlink()
        return freed


def siblings(bundle: Path) -> list[BlobStore]:
    """The other bundles of the folder that a bundle is in."""
    folders = sorted(path.parent for path in bundle.absolute().parent.glob(f"*/{MANIFEST_NAME}"))
    return [BlobStore(folder) for folder in folders if folder != bundle.absolute()]


def _compare(content: Chunk, digest: str, what: str, path: Path) -> None:
    if digest != content.sha256:
        raise damaged(what, path, f"content with SHA-256 {digest}", f"SHA-256 {content.sha256}")


def damaged(what: str, path: Path, got: str, expected: str) -> BundleError:
    """The error for a file that is not what its name says."""
    return BundleError(
        f"{what} is damaged or was altered: {path}",
        got=got,
        expected=expected,
        fix="fetch or build the bundle again",
    )
