"""Bytes that are what their name says, or an error: what is sent and what is fetched goes through here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from sdxl_trt.errors import TransferError
from sdxl_trt.files import no_links
from sdxl_trt.ship.oci import Descriptor

BLOCK = 2**20
"""Bytes that are read, hashed and passed on at once."""


def verified(blocks: Iterable[bytes], wanted: Descriptor, source: str) -> Iterator[bytes]:
    """Pass blocks on while they can be those of a descriptor; never a byte more than it states.

    Nothing is to be believed before the end: only there is the hash known.

    Raises:
        TransferError: too many bytes, too few, or others.
    """
    digest, count = hashlib.sha256(), 0
    for block in blocks:
        count += len(block)
        if count > wanted.size:
            raise _wrong(source, wanted, f"more than {wanted.size} bytes")
        digest.update(block)
        yield block
    if count != wanted.size:
        raise _wrong(source, wanted, f"{count} bytes")
    if digest.hexdigest() != wanted.sha256:
        raise _wrong(source, wanted, f"content with SHA-256 {digest.hexdigest()}")


def _wrong(source: str, wanted: Descriptor, got: str) -> TransferError:
    return TransferError(
        f"{source} gave something else than was asked for; it was thrown away",
        got=got,
        expected=f"{wanted.size} bytes with SHA-256 {wanted.sha256}",
        fix="run this again; if it stays so, what is stored there is damaged or was altered: push the bundle again",
    )


def read_small(blocks: Iterable[bytes], wanted: Descriptor, source: str, *, most: int) -> bytes:
    """A document, verified, in memory.

    Raises:
        TransferError: it is larger than `most` bytes, or not what its descriptor says.
    """
    if wanted.size > most:
        raise _wrong(source, wanted, f"a document of {wanted.size} bytes, of which at most {most} are read")
    return b"".join(verified(blocks, wanted, source))


def file_blocks(path: Path, offset: int, size: int) -> Iterator[bytes]:
    """Part of a file, block by block.

    Raises:
        OSError: it cannot be read, or is a symbolic link.
    """
    with open(path, "rb", buffering=0, opener=no_links) as file:
        file.seek(offset)
        while size and (block := file.read(min(BLOCK, size))):
            size -= len(block)
            yield block
