"""The files of one target into a bundle's folder: those that are there stay, those that neighbours have are linked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from sdxl_trt.bundle import Blob, BlobStore, Chunk, Manifest, Target, mapped
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import atomic_write
from sdxl_trt.progress import Progress
from sdxl_trt.ship.oci import WEIGHTS
from sdxl_trt.ship.packing import piece
from sdxl_trt.ship.parallel import Meter, in_parallel
from sdxl_trt.ship.remote import Remote
from sdxl_trt.ship.verified import verified

_WHAT = "a file of the bundle"
_READERS = 4


@dataclass(frozen=True, kw_only=True)
class Received:
    """How a target's files came here."""

    fetched: int
    """Blobs."""
    fetched_bytes: int
    present_bytes: int
    """That were here already."""
    shared_bytes: int
    """That other bundles of this machine had."""
    damaged: int
    """Files that were here and not what their names said: they were replaced."""


class Receiver:
    """Brings a target here. The caller holds the store's lock.

    Args:
        store: of the folder that is written.
        manifest: whose files these are; it was accepted.
        target: one of its.
        progress: told of bytes.
    """

    def __init__(self, store: BlobStore, manifest: Manifest, target: Target, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._blobs = manifest.blobs(target)
        self._whole = list(mapped(manifest, target).values())
        self._in_chunks = [blob for blob in self._blobs.values() if blob not in self._whole]

    def receive(self, remote: Remote, where: str, others: Sequence[BlobStore], *, check: bool) -> Received:
        """Bring everything here.

        Args:
            remote: where the rest is fetched from.
            where: that is, in words.
            others: bundles of this machine.
            check: hash what is here, rather than go by names and sizes.

        Raises:
            TransferError: something cannot be fetched, or is not what it should be.
            OutputError: the folder cannot be written, or has no room.
            BundleError: chunks do not give the file that they are said to give.
        """
        damaged = self._drop_damaged() if check else 0
        total = sum(blob.bytes for blob in self._blobs.values())
        present = total - self._missing_bytes()
        self._share(others)
        missing = self._missing()
        missing_bytes = sum(part.bytes for part in missing)
        self._check_room(missing_bytes)
        fetched_bytes = self._fetch(missing, remote, where)
        self._join()
        return Received(
            fetched=len(missing),
            fetched_bytes=fetched_bytes,
            present_bytes=present,
            shared_bytes=total - present - missing_bytes,
            damaged=damaged,
        )

    def _missing(self) -> list[Chunk]:
        """Each once, the largest first."""
        missing = {part.sha256: part for blob in self._blobs.values() for part in self._store.missing(blob)}
        return sorted(missing.values(), key=lambda part: part.bytes, reverse=True)

    def _missing_bytes(self) -> int:
        return sum(part.bytes for part in self._missing())

    def _drop_damaged(self) -> int:
        """Delete what is not what its name says; returns how many files."""
        here = [part for blob in self._blobs.values() for part in self._files(blob) if self._store.whole(part)]
        if not here:
            return 0
        meter = Meter(self._progress, "check what is here", sum(part.bytes for part in here))

        def sound(part: Chunk) -> bool:
            try:
                self._store.verify(part, _WHAT)
            except BundleError:
                self._store.path(part).unlink(missing_ok=True)
                return False
            meter.add(part.bytes)
            return True

        found = in_parallel(here, sound, workers=_READERS, cancel=meter.stop)
        meter.finish()
        return found.count(False)

    def _share(self, others: Sequence[BlobStore]) -> None:
        """Take what other bundles have."""
        wanted: dict[str, Chunk] = {blob.sha256: blob for blob in self._whole if not self._store.whole(blob)}
        wanted |= {part.sha256: part for blob in self._in_chunks for part in self._store.missing(blob)}
        if not others or not wanted:
            return
        meter = Meter(self._progress, "look into other bundles", sum(each.bytes for each in wanted.values()))

        def take(content: Chunk) -> None:
            self._store.adopt(content, others)
            meter.add(content.bytes)

        in_parallel(list(wanted.values()), take, workers=_READERS, cancel=meter.stop)
        meter.finish()

    def _files(self, blob: Blob) -> tuple[Chunk, ...]:
        return (blob,) if self._store.whole(blob) else blob.parts

    def _check_room(self, missing: int) -> None:
        """What is fetched, and the largest file that is joined while its chunks are still there."""
        needed = missing + max(
            (blob.bytes for blob in self._whole if blob.chunks and not self._store.whole(blob)), default=0
        )
        free = shutil.disk_usage(self._store.folder).free
        if free < needed:
            raise OutputError(
                f"no room for the bundle in {self._store.bundle}",
                got=f"{free / 1e9:.2f} GB free",
                expected=f"{needed / 1e9:.2f} GB",
                fix="make room, or choose another place with -o; `sdxl-trt store gc` deletes what no bundle needs",
            )

    def _fetch(self, missing: Sequence[Chunk], remote: Remote, where: str) -> int:
        """Fetch files; each has its name when it is verified. Returns the bytes that came."""
        if not missing:
            return 0
        meter = Meter(self._progress, "pull", sum(part.bytes for part in missing))

        def cancel() -> None:
            meter.stop()
            remote.cancel()

        def fetch(part: Chunk) -> None:
            wanted = piece(part, WEIGHTS)
            with atomic_write(self._store.path(part)) as file:
                os.fchmod(file.fileno(), 0o644)
                for block in meter.counted(verified(remote.fetch(wanted), wanted, where)):
                    file.write(block)

        in_parallel(missing, fetch, workers=remote.parallel, cancel=cancel)
        meter.finish()
        return meter.bytes

    def _join(self) -> None:
        """Make whole what libraries open as files; chunks that nothing else needs go at once, for they take room."""
        needed = {part.sha256 for blob in self._in_chunks for part in blob.parts}
        waiting = [blob for blob in self._whole if not self._store.whole(blob)]
        for done, blob in enumerate(waiting):
            self._progress("join", done, len(waiting))
            self._store.join(blob, _WHAT)
            later = {part.sha256 for other in waiting[done + 1 :] for part in other.parts}
            for part in blob.parts:
                if part.sha256 not in needed | later:
                    self._store.path(part).unlink(missing_ok=True)
        if waiting:
            self._progress("join", len(waiting), len(waiting))
