"""Files that a bundle has whole, because they are mapped into memory, name their chunks too: those are what travels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from sdxl_trt.bundle import Blob, BlobStore, EngineEntry, Refiner, Target


class Naming:
    """Names the chunks of blobs, each content in one way wherever it is named.

    Args:
        store: where the blobs are.
        known: blobs whose chunks have been named before, and need not be read again.

    Raises (every method):
        BundleError: a file has changed since it was stored.
        FlavourUnavailable: the library that cuts is not installed.
    """

    def __init__(self, store: BlobStore, known: Iterable[Blob]) -> None:
        self._store = store
        self._known = {blob.sha256: blob for blob in known if blob.chunks}
        self._named = dict[str, Blob]()

    def blob(self, blob: Blob) -> Blob:
        """The blob with its chunks, if it is larger than one."""
        if blob.sha256 not in self._named:
            known = self._known.get(blob.sha256, blob)
            self._named[blob.sha256] = blob if blob.chunks else self._store.name_chunks(known)
        return self._named[blob.sha256]

    def files(self, files: Mapping[str, Blob]) -> dict[str, Blob]:
        """A model's files."""
        return {name: self.blob(blob) for name, blob in files.items()}

    def refiner(self, refiner: Refiner | None) -> Refiner | None:
        """A refiner's files."""
        return refiner and dataclasses.replace(refiner, files=self.files(refiner.files))

    def target(self, target: Target) -> Target:
        """A target's files."""
        return dataclasses.replace(target, engines=self._engines(target.engines), refiner=self._engines(target.refiner))

    def _engines(self, engines: Mapping[str, EngineEntry]) -> dict[str, EngineEntry]:
        return {
            name: dataclasses.replace(entry, file=self.blob(entry.file), weights=tuple(map(self.blob, entry.weights)))
            for name, entry in engines.items()
        }
