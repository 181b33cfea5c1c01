"""Sending a bundle: what is there already is not sent, so a push that was stopped goes on where it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.progress import Progress, silent
from sdxl_trt.ship.oci import Descriptor
from sdxl_trt.ship.packing import Packed, pack
from sdxl_trt.ship.parallel import Meter, in_parallel
from sdxl_trt.ship.remote import Remote, Source


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did."""

    digest: str
    """Of the image index: name@digest is this very bundle, whatever the tag comes to mean."""
    sent: int
    """Blobs that were sent."""
    sent_bytes: int
    """Of blobs, those of attempts that failed included."""
    present: int
    """Blobs that were there already."""
    present_bytes: int
    targets: tuple[str, ...]
    absent: tuple[str, ...]
    """Targets that bundle.json names and that are not here."""


def push(bundle: Path, remote: Remote, *, progress: Progress = silent) -> Pushed:
    """Send a bundle. The reference names it when everything else is there; until then it names what it did before.

    Args:
        bundle: its folder.
        remote: an open one.
        progress: told of bytes.

    Raises:
        BundleError: it is no bundle, or damaged.
        TransferError: it cannot be sent.
        OutputError: a folder or an archive cannot be written.
    """
    packed = pack(bundle)
    blobs = list(packed.blobs.values())
    there = in_parallel([each for each, _ in blobs], remote.has, workers=remote.parallel, cancel=remote.cancel)
    missing = [blob for blob, found in zip(blobs, there, strict=True) if not found]
    sent = _send(missing, remote, progress)
    _name(packed, remote, anew=bool(missing))
    missing_bytes = sum(descriptor.size for descriptor, _ in missing)
    return Pushed(
        digest=packed.index[0].digest,
        sent=len(missing),
        sent_bytes=sent,
        present=len(blobs) - len(missing),
        present_bytes=sum(descriptor.size for descriptor, _ in blobs) - missing_bytes,
        targets=packed.targets,
        absent=packed.absent,
    )


def _send(missing: list[tuple[Descriptor, Source]], remote: Remote, progress: Progress) -> int:
    """Send blobs, the largest first; returns their bytes."""
    if not missing:
        return 0
    meter = Meter(progress, "push", sum(descriptor.size for descriptor, _ in missing))

    def cancel() -> None:
        meter.stop()
        remote.cancel()

    def send(blob: tuple[Descriptor, Source]) -> None:
        descriptor, source = blob
        remote.push(descriptor, lambda: meter.counted(source()))

    missing.sort(key=lambda blob: blob[0].size, reverse=True)
    in_parallel(missing, send, workers=remote.parallel, cancel=cancel)
    meter.finish()
    return meter.bytes


def _name(packed: Packed, remote: Remote, *, anew: bool) -> None:
    """Send the documents; none where the reference names them already and nothing that they name was missing."""
    descriptor, data = packed.index
    if not anew and remote.tagged() == descriptor.digest:
        return
    for manifest in packed.manifests:
        remote.put_manifest(*manifest)
    remote.put_index(descriptor, data)
