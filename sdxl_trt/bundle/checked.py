"""A blob that is handed out piece by piece, never a byte of it unchecked, and never whole in memory.

For engines, which their libraries read as they like, and which are executable code. The file is read once to check its
hash, and the hash of each chunk is noted, in the store, for every later reading; when a chunk is read again to be
handed out, it must still have its hash. So whoever writes to the file in between achieves nothing.
"""

from __future__ import annotations

import hashlib
import os
from types import TracebackType

from sdxl_trt.bundle.blobs import BlobStore, damaged
from sdxl_trt.bundle.manifest import Blob
from sdxl_trt.errors import BundleError
from sdxl_trt.files import no_links, why_unreadable

CHUNK = 2**22
"""Bytes that are read and hashed at once."""


class CheckedBlob:
    """A blob as a file to read from, at a position.

    Args:
        store: the bundle's files.
        blob: which of them.
        what: it is, in words.

    Raises:
        BundleError: it is missing, a link, of another size, or its bytes are not those of its hash.
    """

    def __init__(self, store: BlobStore, blob: Blob, what: str) -> None:
        self._path, self._what = store.path(blob), what
        self.size, self.position = blob.bytes, 0
        self._chunk, self._loaded = b"", -1
        try:
            self._file = open(self._path, "rb", buffering=0, opener=no_links)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise self._damaged(why_unreadable(error), f"a file of {blob.bytes} bytes") from error
        try:
            if blob not in store.digests:
                store.digests[blob] = self._check(blob)
        except BaseException:
            self.close()
            raise
        self._digests = store.digests[blob]

    def _check(self, blob: Blob) -> list[bytes]:
        size = os.fstat(self._file.fileno()).st_size
        if size != blob.bytes:
            raise self._damaged(f"{size} bytes", f"{blob.bytes} bytes")
        whole, digests = hashlib.sha256(), []
        for index in range(-(-size // CHUNK)):
            chunk = self._read_chunk(index)
            whole.update(chunk)
            digests.append(hashlib.sha256(chunk).digest())
        if whole.hexdigest() != blob.sha256:
            raise self._damaged(f"content with SHA-256 {whole.hexdigest()}", f"SHA-256 {blob.sha256}")
        return digests

    def read(self, size: int) -> bytes:
        """Up to `size` bytes from the position on, which moves behind them; none at the end only.

        Raises:
            BundleError: the file has changed since it was checked.
        """
        index, start = divmod(self.position, CHUNK)
        if not 0 <= self.position < self.size:
            return b""
        if index != self._loaded:
            chunk = self._read_chunk(index)
            if hashlib.sha256(chunk).digest() != self._digests[index]:
                raise self._damaged("content that changed after it was checked", "the same content")
            self._chunk, self._loaded = chunk, index
        data = self._chunk[start : start + size]
        self.position += len(data)
        return data

    def _read_chunk(self, index: int) -> bytes:
        """A chunk, whole: a read may give less than was asked for."""
        start, parts = index * CHUNK, []
        while part := os.pread(self._file.fileno(), min((index + 1) * CHUNK, self.size) - start, start):
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, got: str, expected: str) -> BundleError:
        return damaged(self._what, self._path, got, expected)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> CheckedBlob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
