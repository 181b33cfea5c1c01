"""Fetching what one host needs of a bundle. What was fetched stays, so a pull that was stopped goes on where it was.

bundle.json comes last, and it is the same for all targets, since it is signed as it is: targets whose files are not
here were not pulled.
"""

from __future__ import annotations

import dataclasses
import stat
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle import MANIFEST_NAME, BlobStore, manifest_text, parse_manifest, read_manifest, siblings
from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import BundleError, OutputError
from sdxl_trt.files import atomic_write, write_json
from sdxl_trt.paths import bundles_folder
from sdxl_trt.progress import Progress, silent
from sdxl_trt.ship.choosing import Choice, Choose
from sdxl_trt.ship.offer import Offer, look
from sdxl_trt.ship.receiving import Received, Receiver
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.remote import Remote
from sdxl_trt.trust import SIGNATURE_NAME, Freshness

RECORD_NAME = ".pulled.json"
"""Where a folder's bundle came from. Folders without it were built here, and are not overwritten."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What `RECORD_NAME` holds."""

    reference: str
    digest: str = ""
    """Of what the reference named when the pull was over; none before that."""


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What a pull did."""

    choice: Choice
    digest: str
    created: str
    """When the bundle was made."""
    signer: str | None
    """The fingerprint of the key that vouches for it; None on a host without keys."""
    received: Received


def pull(
    reference: Reference,
    remote: Remote,
    folder: Path,
    choose: Choose,
    *,
    allow_downgrade: bool = False,
    check: bool = True,
    progress: Progress = silent,
) -> Pulled:
    """Fetch the target that fits, and just that, into a bundle's folder.

    Args:
        reference: what is pulled.
        remote: it, open.
        folder: the bundle's; made if it is not there.
        choose: which target.
        allow_downgrade: take a bundle that is older than what came from there before.
        check: hash what is in the folder already, rather than go by names and sizes; what is damaged is fetched again.
        progress: told of bytes.

    Raises:
        TransferError: it cannot be had, or is not what it should be.
        NotTrusted: this host has keys, and none of them vouches for it, or it is older than what came before.
        NoTargetForHost: nothing in it is for this host.
        BundleError: it is damaged or hostile.
        OutputError: the folder cannot be written, has no room, or holds a bundle that was built here.
    """
    _refuse_own(folder)
    offer = look(reference, remote)
    choice = choose(offer.shipped)
    fresh = Freshness(bundles_folder())
    if offer.signer and not allow_downgrade:
        fresh.check(reference.origin, offer.manifest.created, _created(folder))
    store = BlobStore(folder)
    with store.lock():
        receiver = Receiver(store, offer.manifest, choice.target, progress)
        received = receiver.receive(remote, str(reference), siblings(folder), check=check)
        _record(folder, Record(reference=str(reference)))
        _write_manifest(folder, offer)
        _record(folder, Record(reference=str(reference), digest=offer.digest))
        store.keep_only(offer.manifest.blobs().values())
        _close_to_others(folder)
    if offer.signer:
        fresh.remember(reference.origin, offer.manifest.created)
    return Pulled(
        choice=choice,
        digest=offer.digest,
        created=offer.manifest.created,
        signer=offer.signer.fingerprint if offer.signer else None,
        received=received,
    )


def is_current(remote: Remote, folder: Path, choose: Choose) -> bool:
    """Whether a folder holds, by names and sizes, all that a pull would bring; nothing is written to find out.

    Raises:
        TransferError: the remote cannot be asked.
    """
    try:
        record = decode(Record, loads((folder / RECORD_NAME).read_bytes(), max_bytes=2**16))
        manifest, store = read_manifest(folder), BlobStore(folder)
        here = [target for target in manifest.targets if all(map(store.has, manifest.blobs(target).values()))]
        choose(dataclasses.replace(manifest, targets=tuple(here)))
    except (OSError, DecodeError, BundleError):
        return False
    return bool(record.digest) and record.digest == remote.tagged()


def _refuse_own(folder: Path) -> None:
    if (folder / MANIFEST_NAME).exists() and not (folder / RECORD_NAME).exists():
        raise OutputError(
            f"{folder} holds a bundle that was built here",
            got=f"{MANIFEST_NAME} without {RECORD_NAME}",
            expected="a new folder, or one that was pulled",
            fix="choose another folder with -o",
        )


def _created(folder: Path) -> str | None:
    """When the bundle in a folder was made; None where there is none that can be read."""
    try:
        return parse_manifest(manifest_text(folder), folder / MANIFEST_NAME).created
    except BundleError:
        return None


def _close_to_others(folder: Path) -> None:
    """Hosts with keys refuse bundles that other users could write, and many systems let one's group write new files."""
    for path in (
        folder,
        folder / "blobs",
        folder / "blobs" / "sha256",
        folder / MANIFEST_NAME,
        folder / SIGNATURE_NAME,
    ):
        if path.exists():
            path.chmod(path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))


def _record(folder: Path, record: Record) -> None:
    write_json(folder / RECORD_NAME, dataclasses.asdict(record))


def _write_manifest(folder: Path, offer: Offer) -> None:
    """The signature first: what is signed counts only with it. One that was here before is another bundle's."""
    if offer.signature is None:
        (folder / SIGNATURE_NAME).unlink(missing_ok=True)
    else:
        with atomic_write(folder / SIGNATURE_NAME) as file:
            file.write(offer.signature)
    with atomic_write(folder / MANIFEST_NAME) as file:
        file.write(offer.text)
