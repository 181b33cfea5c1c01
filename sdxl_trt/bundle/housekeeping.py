"""A folder of bundles: what each takes, what is of no use any more, and whether everything is sound.

Bundles share equal files by hard links, so there is no store but the bundles themselves. (Blocks that files share by
reflinks are not seen: they count as if each file had its own.)
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle.blobs import BlobStore
from sdxl_trt.bundle.content import SHA256
from sdxl_trt.bundle.copying import link
from sdxl_trt.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from sdxl_trt.bundle.presence import Absence, not_pulled
from sdxl_trt.bundle.reading import damaged
from sdxl_trt.errors import BundleError
from sdxl_trt.files import LOCK_NAME, TEMPORARY_PREFIX, sha256_of, temporary_in
from sdxl_trt.progress import Progress

PENDING = ".pending"
"""The folder of records of engines whose build has not finished."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a bundle takes; sizes in bytes."""

    content: int
    """Of all files of all targets that are here, as if each target were alone."""
    disk: int
    """Of the files that are really there: what targets have alike is there once."""
    alone: int
    """Of those that no other bundle has: what deleting the bundle would free."""
    unused: int
    """Of those that it does not name."""
    absent: dict[str, Absence]
    """Targets that were not pulled."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was removed of a bundle; sizes in bytes."""

    freed: int
    linked: int
    """Of files that another bundle had too, which are now one."""


def begun_bundles(folder: Path) -> list[Path]:
    """The bundles of a folder, and what a build or a pull that did not finish left of others, by name."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if not path.is_symlink() and _is_ours(path)]


def _is_ours(path: Path) -> bool:
    return (path / MANIFEST_NAME).exists() or ((path / LOCK_NAME).exists() and BlobStore(path).folder.is_dir())


def use(bundle: Path, manifest: Manifest | None) -> Use:
    """What a bundle takes; without a manifest, one that was only begun."""
    files, store = list(_files(bundle)), BlobStore(bundle)
    absent = not_pulled(manifest, bundle) if manifest else {}
    named = store.needed(manifest.blobs().values() if manifest else ())
    return Use(
        content=_content(manifest, absent) if manifest else 0,
        disk=sum(found.st_size for _, found in files),
        alone=sum(found.st_size for _, found in files if found.st_nlink == 1),
        unused=sum(found.st_size for path, found in files if path.name not in named),
        absent=absent,
    )


def _content(manifest: Manifest, absent: Container[str]) -> int:
    here = [target for target in manifest.targets if target.name not in absent]
    return sum(blob.bytes for target in here for blob in manifest.blobs(target).values())


def disk_bytes(bundles: Iterable[Path]) -> int:
    """Bytes of the files of several bundles; those that are linked count once."""
    sizes = {(found.st_dev, found.st_ino): found.st_size for bundle in bundles for _, found in _files(bundle)}
    return sum(sizes.values())


def _files(bundle: Path) -> Iterator[tuple[Path, os.stat_result]]:
    folder = BlobStore(bundle).folder
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path, path.lstat()


def collect(bundle: Path, others: Iterable[BlobStore]) -> Collected:
    """Remove what a bundle does not name, and what a build or a pull that did not finish left of one.

    What other bundles have too becomes one file with theirs.

    Raises:
        BundleError: bundle.json cannot be read; nothing was removed.
        OutputError: somebody is writing the bundle, or it cannot be written; nothing was removed.
    """
    store = BlobStore(bundle)
    temporary = sum(path.stat().st_size for path in bundle.rglob(TEMPORARY_PREFIX + "*"))  # which locking removes
    with store.lock():
        manifest = read_manifest(bundle) if (bundle / MANIFEST_NAME).exists() else None
        shutil.rmtree(bundle / PENDING, ignore_errors=True)
        freed = store.keep_only(manifest.blobs().values() if manifest else ())
        linked = _link_copies(store, others)
        if manifest is None:
            _remove(bundle)
    return Collected(freed=freed + temporary, linked=linked)


def _remove(bundle: Path) -> None:
    """What is left of a bundle that was only begun; files of others stay, and then so does the folder."""
    shutil.rmtree(bundle / "blobs")
    (bundle / LOCK_NAME).unlink()
    if not any(bundle.iterdir()):
        bundle.rmdir()


def _link_copies(store: BlobStore, others: Iterable[BlobStore]) -> int:
    """Make one of equal files of bundles; returns the bytes that are free for it. Only a sound file is linked."""
    freed = 0
    for path, found in list(_files(store.bundle)):
        for twin in (other.folder / path.name for other in others):
            temporary = temporary_in(store.folder)
            try:
                if _is_copy(twin, found) and link(twin, temporary) and sha256_of(temporary) == path.name:
                    temporary.replace(path)
                    freed += found.st_size if found.st_nlink == 1 else 0
                    break
            finally:
                temporary.unlink(missing_ok=True)
    return freed


def _is_copy(path: Path, found: os.stat_result) -> bool:
    """A file as large as one that was found, and not the very same."""
    try:
        other = path.lstat()
    except OSError:
        return False
    same = (other.st_dev, other.st_ino) == (found.st_dev, found.st_ino)
    return stat.S_ISREG(other.st_mode) and other.st_size == found.st_size and not same


class Verifier:
    """Reads files of bundles, each once, however many bundles it is in.

    Args:
        progress: told of each bundle, in bytes.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._digests = dict[tuple[int, int], str]()

    def verify(self, bundle: Path, manifest: Manifest) -> Iterator[BundleError]:
        """What is wrong with the files of a bundle: those that are there, and those that should be."""
        stage, files = f"verify {bundle.name}", list(_files(bundle))
        done, total = 0, sum(found.st_size for _, found in files)
        for path, found in files:
            if not path.name.startswith(TEMPORARY_PREFIX) and (error := self._check(path, found)):
                yield error
            done += found.st_size
            self._progress(stage, min(done, total - 1), total)
        yield from _lost(bundle, manifest)
        self._progress(stage, total, total)

    def _check(self, path: Path, found: os.stat_result) -> BundleError | None:
        what, expected = "a file of the bundle", f"content with SHA-256 {path.name}"
        if not stat.S_ISREG(found.st_mode) or not SHA256.fullmatch(path.name):
            return damaged(what, path, "no regular file of a hash's name", expected)
        inode = found.st_dev, found.st_ino
        try:
            digest = self._digests.get(inode) or sha256_of(path)
        except OSError as error:
            return damaged(what, path, error.strerror or str(error), expected)
        self._digests[inode] = digest
        return None if digest == path.name else damaged(what, path, f"SHA-256 {digest}", expected)


def _lost(bundle: Path, manifest: Manifest) -> Iterator[BundleError]:
    store, absent = BlobStore(bundle), not_pulled(manifest, bundle)
    here = [target for target in manifest.targets if target.name not in absent]
    blobs = manifest.blobs(*here) if here else {blob.sha256: blob for blob in manifest.shared()}
    for part in {part for blob in blobs.values() for part in store.missing(blob)}:
        yield damaged("a file of the bundle", store.path(part), "none of that size", f"a file of {part.bytes} bytes")
