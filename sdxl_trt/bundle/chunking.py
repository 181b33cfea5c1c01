"""Content-defined chunking: a stream is cut where its bytes say so, so equal stretches of two files are equal chunks.

FastCDC (Xia et al., USENIX ATC 2016), by the package of that name. Wherever a stretch lies in a file, it is cut alike
from its second cut on; bytes that differ change the chunk they are in, and seldom the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from typing import Any

from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.libraries import require

AVERAGE = 2**23
"""Bytes of a chunk, about. What is not larger is not cut."""

SPREAD = 4
"""The smallest chunk is a fourth of the average (but the last one), the largest four times it."""


def cutting_library() -> Any:
    """fastcdc as compiled code: its Python form needs an hour for a plan of SDXL's.

    Raises:
        FlavourUnavailable: it is not installed.
    """
    with contextlib.redirect_stdout(sys.stderr):  # where it says that it is not compiled
        return require("fastcdc.fastcdc_cy", "cut files into chunks")


class Chunker:
    """Cuts what is written to it. It holds no more of it than one chunk of the largest size, and the last write.

    Args:
        take: given each chunk and its bytes, in order; the bytes are valid during the call only.
        average: bytes of a chunk, about.

    Raises:
        FlavourUnavailable: fastcdc is not installed; from `write` and `blob`, when there is something to cut.
    """

    def __init__(self, take: Callable[[Chunk, memoryview], object] | None = None, *, average: int = AVERAGE) -> None:
        self._take, self._average = take, average
        self._held, self._hash, self._chunks = bytearray(), hashlib.sha256(), list[Chunk]()
        self._blob: Blob | None = None
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; returns its length in bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._held += view
        self.bytes += len(view)
        while len(self._held) >= self._average * SPREAD:
            self._cut()
        return len(view)

    def blob(self) -> Blob:
        """Cut the rest, and name all that was written; nothing can be written any more."""
        if self._blob is None:
            if self.bytes <= self._average:
                self._emit(self.bytes)
            while self._held:
                self._cut()
            chunks = tuple(self._chunks) if len(self._chunks) > 1 else ()
            self._blob = Blob(sha256=self._hash.hexdigest(), bytes=self.bytes, chunks=chunks)
        return self._blob

    def _cut(self) -> None:
        smallest, largest = self._average // SPREAD, self._average * SPREAD
        with memoryview(self._held) as held:
            cuts = cutting_library().fastcdc_cy(held, min_size=smallest, avg_size=self._average, max_size=largest)
            length = next(cuts).length
            del cuts  # it holds on to the buffer, which could not be shortened
        self._emit(length)

    def _emit(self, length: int) -> None:
        with memoryview(self._held) as held, held[:length] as data:
            chunk = Chunk(sha256=hashlib.sha256(data).hexdigest(), bytes=length)
            self._chunks.append(chunk)
            if self._take:
                self._take(chunk, data)
        del self._held[:length]
