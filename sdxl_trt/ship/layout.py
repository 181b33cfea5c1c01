"""An OCI image layout: registries' content as files, for hosts that no network reaches.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from sdxl_trt.errors import TransferError
from sdxl_trt.files import exclusive
from sdxl_trt.ship import oci
from sdxl_trt.ship.oci import Descriptor
from sdxl_trt.ship.places import LocalFiles, UrlFiles
from sdxl_trt.ship.references import LATEST, Reference
from sdxl_trt.ship.remote import Source
from sdxl_trt.ship.verified import read_small

MARKER = "oci-layout"
INDEX_NAME = "index.json"
BLOBS = "blobs/sha256/"

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_FILE = "file://"


class Files(Protocol):
    """Files by their names, with / in them, in one place. All raise errors of `SdxlTrtError`."""

    parallel: int

    def size(self, name: str) -> int | None:
        """In bytes; None where there is no such regular file."""

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes."""

    def write(self, name: str, blocks: Iterable[bytes]) -> None:
        """Make a file, or replace it; it is whole, or not as it should be in size, or not there."""

    def close(self, *, failed: bool) -> None:
        """Finish, or give up."""


class Layout:
    """A layout in any kind of place; see `Remote`."""

    def __init__(self, files: Files, reference: Reference, lock: Path | None = None) -> None:
        self._files, self._reference, self._lock = files, reference, lock
        self._held = contextlib.ExitStack()
        self.parallel = files.parallel

    def __enter__(self) -> Self:
        if self._lock:
            self._held.enter_context(exclusive(self._lock))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            self._files.close(failed=kind is not None)

    def cancel(self) -> None:
        """As of `Remote`; nothing waits here."""

    def tagged(self) -> str | None:
        """As of `Remote`."""
        found = self._find()
        return found.digest if found else None

    def _find(self) -> Descriptor | None:
        """What the tag names; without a tag, what is there alone."""
        entries = self._entries()
        for entry in entries:
            if entry.annotations.get(oci.REF_NAME) == self._reference.tag:
                return entry
        return entries[0] if len(entries) == 1 and self._reference.tag == LATEST else None

    def _entries(self) -> tuple[Descriptor, ...]:
        if self._files.size(INDEX_NAME) is None:
            return ()
        data, where = b"", f"{self._reference.place} ({INDEX_NAME})"
        for block in self._files.read(INDEX_NAME):
            data += block
            if len(data) > oci.MAX_BYTES:
                raise oci.not_ours(where, f"more than {oci.MAX_BYTES} bytes")
        return oci.parse(oci.Index, data, where).manifests

    def resolve(self) -> bytes:
        """As of `Remote`."""
        found = self._find()
        if found is None:
            tags = [entry.annotations.get(oci.REF_NAME, "without a name") for entry in self._entries()]
            raise TransferError(
                f"there is no {self._reference}",
                got=f"{len(tags)} others: {', '.join(tags)[:200]}" if tags else f"nothing in its {INDEX_NAME}",
                expected="an OCI image layout that holds this tag",
                fix="check the path and the tag; or push it: sdxl-trt ship push BUNDLE REFERENCE",
            )
        return read_small(self.manifest(found), found, str(self._reference), most=oci.MAX_BYTES)

    def manifest(self, descriptor: Descriptor) -> Iterator[bytes]:
        """As of `Remote`."""
        return self._files.read(BLOBS + descriptor.sha256)

    def has(self, descriptor: Descriptor) -> bool:
        """As of `Remote`."""
        return self._files.size(BLOBS + descriptor.sha256) == descriptor.size

    def fetch(self, descriptor: Descriptor) -> Iterator[bytes]:
        """As of `Remote`."""
        return self._files.read(BLOBS + descriptor.sha256)

    def push(self, descriptor: Descriptor, source: Source) -> None:
        """As of `Remote`."""
        self._files.write(BLOBS + descriptor.sha256, source())

    def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """As of `Remote`."""
        self._files.write(BLOBS + descriptor.sha256, [data])

    def put_index(self, descriptor: Descriptor, data: bytes) -> None:
        """As of `Remote`."""
        self.put_manifest(descriptor, data)
        named = dataclasses.replace(descriptor, annotations={oci.REF_NAME: self._reference.tag})
        others = (each for each in self._entries() if each.annotations.get(oci.REF_NAME) != self._reference.tag)
        self._files.write(MARKER, [_VERSION])
        self._files.write(INDEX_NAME, [oci.dump(oci.Index(manifests=(*others, named)))])


def open_layout(reference: Reference, *, write: bool) -> Layout:
    """A layout in a folder, or at a URL.

    Raises:
        TransferError: the URL is of a kind not known here.
    """
    place = reference.place.removeprefix(_FILE)
    if "://" in place:
        return Layout(UrlFiles(place), reference)
    return Layout(LocalFiles(Path(place)), reference, lock=Path(place) if write else None)
