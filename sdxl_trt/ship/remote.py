"""What every place that bundles are shipped to and from can do, and finding the one that a reference means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from sdxl_trt.libraries import require
from sdxl_trt.ship.oci import Descriptor
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.retrying import Patience

Source = Callable[[], Iterator[bytes]]
"""Gives a blob's bytes, from its beginning each time."""


class Remote(Protocol):
    """One reference's place. Methods may be called from several threads; all raise `TransferError`."""

    parallel: int
    """Transfers that are worth doing at once."""

    def tagged(self) -> str | None:
        """The digest of the image index that the reference names; None where there is none."""

    def resolve(self) -> bytes:
        """The image index, or the manifest, that the reference names; verified where it names a digest."""

    def manifest(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A manifest's bytes, not verified."""

    def has(self, descriptor: Descriptor) -> bool:
        """A blob of that digest and size is there."""

    def fetch(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, not verified."""

    def push(self, descriptor: Descriptor, source: Source) -> None:
        """Store a blob; it is not there, or not whole, if this fails."""

    def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a manifest. All that it names must be there."""

    def put_index(self, descriptor: Descriptor, data: bytes) -> None:
        """Store the image index, and have the reference name it. All that it names must be there."""

    def cancel(self) -> None:
        """Nobody waits for what other threads are doing any more: have them fail rather than try again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; where an error passes, what was begun is undone if it is of no use for a later attempt."""


def open_remote(
    reference: Reference, *, write: bool, plain_http: bool = False, patience: Patience | None = None
) -> Remote:
    """The place that a reference means.

    Args:
        reference: which.
        write: something is to be pushed there.
        plain_http: a registry without TLS on another machine is accepted.
        patience: with a registry.

    Raises:
        UsageError: it cannot be written to.
        TransferError: it cannot be reached, or read.
        FlavourUnavailable: the library for it is not installed.
    """
    # Each brings a library that the others do without.
    if reference.kind == "registry":
        require("httpx2", "talk to registries")
        from sdxl_trt.ship.registry import Registry

        return Registry(reference, write=write, plain_http=plain_http, patience=patience or Patience())
    if reference.kind == "archive":
        from sdxl_trt.ship.archive import open_archive

        return open_archive(reference, write=write)
    from sdxl_trt.ship.layout import open_layout

    return open_layout(reference, write=write)
