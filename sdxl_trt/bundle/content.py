"""Bytes by their content: what names a file of a bundle, and the chunks that it travels in."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHA256 = re.compile(r"[0-9a-f]{64}")

MAX_CHUNK_BYTES = 2**26
"""A chunk is checked in memory before a byte of it is handed on."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Bytes by their content. They have no path of their own, so no path can lead out of the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256[:80]!r} is not a SHA-256 (64 lower-case hexadecimal digits)")
        if not 0 <= self.bytes < 2**50:
            raise ValueError(f"{self.bytes} is no file size")

    @property
    def parts(self) -> tuple[Chunk, ...]:
        """The files that it may be in instead of one of its own; of what is not cut, that one."""
        return (self,)


@dataclass(frozen=True, kw_only=True)
class Blob(Chunk):
    """A file by its content, which is a file of that name, or else its chunks one behind the other, each a file."""

    chunks: tuple[Chunk, ...] = ()
    """Two or more, of content-defined size; none: it is not cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.chunks:
            return
        total = sum(chunk.bytes for chunk in self.chunks)
        if total != self.bytes:
            raise ValueError(f"chunks of {total} bytes together in a file of {self.bytes}")
        for chunk in self.chunks:
            if not 0 < chunk.bytes <= MAX_CHUNK_BYTES:
                raise ValueError(f"a chunk of {chunk.bytes} bytes; they have 1 to {MAX_CHUNK_BYTES}")
        if len(self.chunks) == 1:
            raise ValueError("a single chunk: what is not cut has none")

    @property
    def parts(self) -> tuple[Chunk, ...]:
        """Its chunks; of what is not cut, the file itself."""
        return self.chunks or (self,)
