"""Files by content, written, shared and removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sdxl_trt.bundle.chunking import AVERAGE, Chunker
from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.bundle.copying import copy, link_or_copy
from sdxl_trt.bundle.manifest import MANIFEST_NAME
from sdxl_trt.bundle.reading import BlobReader, compare
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import LOCK_NAME, exclusive, sha256_of, temporary_in, unwritable

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
        _write_all(self._descriptor, view)
        self.bytes += len(view)
        return len(view)

    def blob(self) -> Blob:
        """Name of what was written so far."""
        return Blob(sha256=self._hash.hexdigest(), bytes=self.bytes)


def _write_all(descriptor: int, view: memoryview) -> None:
    while len(view):
        view = view[os.write(descriptor, view) :]


class BlobStore(BlobReader):
    """The blobs of one bundle folder, which this process may write.

    Args:
        bundle: the folder.
        average: bytes of the chunks that blobs are cut into, about.
    """

    def __init__(self, bundle: Path, *, average: int = AVERAGE) -> None:
        super().__init__(bundle)
        self._average = average

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
                with self._temporary() as (descriptor, temporary):
                    _write_all(descriptor, data)
                    self._finish(descriptor, temporary, chunk)

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

    def _finish(self, descriptor: int, temporary: Path, content: Chunk) -> None:
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o644)
        temporary.replace(self.path(content))

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
        with self.opened(blob, what) as file:
            while data := file.read(_BLOCK):
                chunker.write(data)
        compare(blob, chunker.blob().sha256, what, self.path(blob))
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
                compare(blob, writer.blob().sha256, what, self.path(blob))
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
        wanted, freed = self.needed(blobs), 0
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
