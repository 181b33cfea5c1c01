"""What is there of a bundle: a host pulls the files of one target, and bundle.json names those of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle.blobs import BlobStore
from sdxl_trt.bundle.content import Blob, Chunk
from sdxl_trt.bundle.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A target that was not pulled."""

    missing: int
    files: int
    bytes: int
    """Of those that are missing."""

    def __str__(self) -> str:
        return f"not pulled: {self.missing} of its {self.files} files are not here ({self.bytes:,} bytes)"


def not_pulled(manifest: Manifest, bundle: Path) -> dict[str, Absence]:
    """The targets, by name, that were not pulled into a bundle's folder.

    No file is there that such a target has alone, beside those targets that are all there. One of which some are there
    has lost the others: it is damaged, which is found out when it is used.
    """
    folder = BlobStore(bundle).folder
    here = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    files = {target.name: _files(target.blobs(), here) for target in manifest.targets}
    missing = {name: {key: part for key, part in each.items() if key not in here} for name, each in files.items()}
    common = set(_files(manifest.shared(), here))
    common = common.union(*(files[name] for name in files if not missing[name]))
    return {
        name: Absence(missing=len(lost), files=len(files[name]), bytes=sum(part.bytes for part in lost.values()))
        for name, lost in missing.items()
        if lost and here.isdisjoint(files[name].keys() - common)
    }


def _files(blobs: Iterable[Blob], here: set[str]) -> dict[str, Chunk]:
    """The files that blobs are in, or would be, by hash."""
    return {part.sha256: part for blob in blobs for part in ((blob,) if blob.sha256 in here else blob.parts)}
