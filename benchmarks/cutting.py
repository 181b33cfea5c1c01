"""A plan cut in several ways at once as it comes, and forgotten: what is kept is the hashes of its chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdxl_trt.bundle.chunking import Chunker
from sdxl_trt.engines.hooks import Sink

Parts = dict[str, int]
"""Chunks of a plan: bytes by hash."""
Way = tuple[str, int]
"""Who cut a plan, and the size meant."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is kept of a plan."""

    bytes: int
    cuts: Mapping[Way, Parts]


class Fixed:
    """Cuts every `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size, self._held, self.parts = size, bytearray(), Parts()

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; returns its length."""
        self._held += data
        while len(self._held) >= self._size:
            self._cut(self._size)
        return len(data)

    def finish(self) -> Parts:
        """All chunks."""
        if self._held:
            self._cut(len(self._held))
        return self.parts

    def _cut(self, size: int) -> None:
        with memoryview(self._held) as held, held[:size] as part:
            self.parts[hashlib.sha256(part).hexdigest()] = size
        del self._held[:size]


class Cutter:
    """A sink that cuts a plan in every way at once, and forgets it."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._by_content = {size: Chunker(average=size) for size in sizes}
        self._fixed = {size: Fixed(size) for size in sizes}

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`; returns its length."""
        sinks: list[Sink] = [*self._by_content.values(), *self._fixed.values()]
        for sink in sinks:
            sink.write(data)
        return len(data)

    def plan(self) -> Plan:
        """All chunks."""
        blobs = {size: chunker.blob() for size, chunker in self._by_content.items()}
        cuts = {("FastCDC", size): {part.sha256: part.bytes for part in blob.parts} for size, blob in blobs.items()}
        cuts |= {("fixed", size): fixed.finish() for size, fixed in self._fixed.items()}
        return Plan(bytes=blobs[min(blobs)].bytes, cuts=cuts)
