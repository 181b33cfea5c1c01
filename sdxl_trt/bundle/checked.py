"""A blob that is handed out piece by piece, never a byte of it unchecked, and never whole in memory.

For engines, which their libraries read as they like, and which are executable code. Of a blob that the manifest names
the chunks of, each is read when it is needed, and must have its hash. A blob that is not cut is read once before, to
check its hash, and the hash of each piece is noted, in the store, for every later reading; when a piece is read again
to be handed out, it must still have its hash. So whoever writes to the files in between achieves nothing.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import os
from types import TracebackType

from sdxl_trt.bundle.blobs import BlobStore
from sdxl_trt.bundle.content import Blob
from sdxl_trt.bundle.reading import damaged
from sdxl_trt.errors import BundleError
from sdxl_trt.files import no_links, why_unreadable

CHUNK = 2**22
"""Bytes of a blob that is not cut that are read and hashed at once."""


class CheckedBlob:
    """A blob as a file to read from, at a position.

    Args:
        store: the bundle's files.
        blob: which of them.
        what: it is, in words.

    Raises:
        BundleError: it is missing, a link, of another size, or its bytes are not those of its hash; of a blob that is
            cut, `read` finds out the last.
    """

    def __init__(self, store: BlobStore, blob: Blob, what: str) -> None:
        self._store, self._blob, self._what = store, blob, what
        self.size, self.position = blob.bytes, 0
        self._piece, self._loaded = b"", -1
        uncut = (min(CHUNK, self.size - start) for start in range(0, self.size, CHUNK))
        self._starts = list(itertools.accumulate((c.bytes for c in blob.chunks) if blob.chunks else uncut, initial=0))
        self._digests = [chunk.sha256 for chunk in blob.chunks]
        self._file: io.FileIO | None = None
        if blob.chunks and not store.whole(blob):
            if missing := store.missing(blob):
                raise self._damaged(f"{len(missing)} of its {len(blob.chunks)} chunks are not there", "all of them")
            return
        self._file = self._open()
        try:
            if not blob.chunks and blob not in store.digests:
                store.digests[blob] = self._check(self._file)
        except BaseException:
            self.close()
            raise
        self._digests = self._digests or store.digests[blob]

    def _open(self) -> io.FileIO:
        try:
            return open(self._store.path(self._blob), "rb", buffering=0, opener=no_links)
        except OSError as error:
            raise self._damaged(why_unreadable(error), f"a file of {self.size} bytes") from error

    def _check(self, file: io.FileIO) -> list[str]:
        """The hash of each piece of a file that was found sound."""
        size = os.fstat(file.fileno()).st_size
        if size != self.size:
            raise self._damaged(f"{size} bytes", f"{self.size} bytes")
        whole, digests = hashlib.sha256(), []
        for index in range(len(self._starts) - 1):
            piece = self._read_piece(file, index)
            whole.update(piece)
            digests.append(hashlib.sha256(piece).hexdigest())
        if whole.hexdigest() != self._blob.sha256:
            raise self._damaged(f"content with SHA-256 {whole.hexdigest()}", f"SHA-256 {self._blob.sha256}")
        return digests

    def read(self, size: int) -> bytes:
        """Up to `size` bytes from the position on, which moves behind them; none at the end only.

        Raises:
            BundleError: they are not what the manifest says, or have changed since they were checked.
        """
        if not 0 <= self.position < self.size:
            return b""
        index = bisect.bisect_right(self._starts, self.position) - 1
        if index != self._loaded:
            self._piece, self._loaded = b"", -1
            self._piece, self._loaded = self._checked_piece(index), index
        start = self.position - self._starts[index]
        data = self._piece[start : start + size]
        self.position += len(data)
        return data

    def _checked_piece(self, index: int) -> bytes:
        if self._file is None:
            return self._store.read(self._blob.chunks[index], self._what)
        piece = self._read_piece(self._file, index)
        if hashlib.sha256(piece).hexdigest() != self._digests[index]:
            why = "that is not what its hash says" if self._blob.chunks else "that changed after it was checked"
            raise self._damaged(f"content {why}", "the same content")
        return piece

    def _read_piece(self, file: io.FileIO, index: int) -> bytes:
        """A piece of the file, whole: a read may give less than was asked for."""
        start, end, parts = self._starts[index], self._starts[index + 1], []
        while part := os.pread(file.fileno(), end - start, start):
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, got: str, expected: str) -> BundleError:
        return damaged(self._what, self._store.path(self._blob), got, expected)

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def __enter__(self) -> CheckedBlob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
