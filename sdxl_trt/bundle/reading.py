"""Files by content, read. Nothing is handed out before its size and hash are checked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.errors import BundleError
from sdxl_trt.files import no_links, why_unreadable


class BlobReader:
    """The blobs of one bundle folder.

    Args:
        bundle: the folder.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
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

    def needed(self, blobs: Iterable[Blob]) -> set[str]:
        """The names of the files that these blobs are in: of one that is whole, itself; of others, their chunks."""
        return {part.sha256 for blob in blobs for part in ((blob,) if self.whole(blob) else blob.parts)}

    def has(self, content: Chunk) -> bool:
        """It is there, whole or in chunks, as far as names and sizes tell."""
        return not self.missing(content)

    def verify(self, content: Chunk, what: str) -> Path:
        """Check a whole blob from end to end, unless it was found sound and not written since; return its path.

        Raises:
            BundleError: it is missing, a link, of another size, or its bytes are not those of its hash.
        """
        path = self.path(content)
        with self.opened(content, what) as file:
            found = os.fstat(file.fileno())
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            if self._verified.get(content.sha256) != state:
                compare(content, hashlib.file_digest(file, "sha256").hexdigest(), what, path)
                self._verified[content.sha256] = state
        return path

    def read(self, chunk: Chunk, what: str) -> bytes:
        """All bytes of a chunk, checked.

        Raises:
            BundleError: as of `verify`.
        """
        with self.opened(chunk, what) as file:
            data = file.read()
        compare(chunk, hashlib.sha256(data).hexdigest(), what, self.path(chunk))
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
        compare(blob, digest.hexdigest(), what, self.path(blob))

    @contextlib.contextmanager
    def opened(self, content: Chunk, what: str) -> Iterator[io.BufferedReader]:
        """A file of the right size, open; what the system refuses is damage.

        Raises:
            BundleError: as of `verify`, but for its hash.
        """
        path = self.path(content)
        try:
            with open(path, "rb", opener=no_links) as file:
                size = os.fstat(file.fileno()).st_size
                if size != content.bytes:
                    raise damaged(what, path, f"{size} bytes", f"{content.bytes} bytes")
                yield file
        except OSError as error:
            raise damaged(what, path, why_unreadable(error), f"a file of {content.bytes} bytes") from error


def compare(content: Chunk, digest: str, what: str, path: Path) -> None:
    """Refuse what has another hash than its name says.

    Raises:
        BundleError: it has.
    """
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
