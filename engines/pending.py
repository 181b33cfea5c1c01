"""Engines that exist already: those of the bundle, and those of a build that did not live to write bundle.json."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection
from pathlib import Path

from sdxl_trt.bundle import MANIFEST_NAME, Blob, BlobStore, EngineEntry, Target, read_manifest
from sdxl_trt.bundle.housekeeping import PENDING
from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import BundleError
from sdxl_trt.files import write_json
from sdxl_trt.spec import ModelSpec

_MAX_BYTES = 2**22


class Existing:
    """What a bundle folder holds when a build begins. The caller holds the bundle's lock.

    Args:
        bundle: the folder.
        model: that is being built.
        refiner: that is being built with it.

    Raises:
        BundleError: the bundle is damaged, of another version, or of another model or refiner.
    """

    def __init__(self, bundle: Path, model: ModelSpec, refiner: ModelSpec | None = None) -> None:
        self._store = BlobStore(bundle)
        self._pending = bundle / PENDING
        self._sound: set[str] = set()
        self.manifest = read_manifest(bundle, signed=False) if (bundle / MANIFEST_NAME).exists() else None
        if self.manifest:
            _check_same_model(bundle, self.manifest.model, model)
            if refiner and self.manifest.refiner:
                _check_same_model(bundle, self.manifest.refiner.model, refiner)
        self._engines = {entry.key: entry for entry in (*self._recorded(), *self._landed())}

    def _landed(self) -> list[EngineEntry]:
        targets = self.manifest.targets if self.manifest else ()
        return [entry for target in targets for _, entry in target.all_engines()]

    def _recorded(self) -> list[EngineEntry]:
        entries = []
        for path in self._pending.glob("*.json"):
            try:
                entries.append(decode(EngineEntry, loads(path.read_bytes(), max_bytes=_MAX_BYTES)))
            except DecodeError:  # of an earlier version: the engine is built again
                path.unlink()
        return entries

    def kept(self, replaced: Collection[str]) -> tuple[Target, ...]:
        """The bundle's targets but those that are about to be replaced, by name.

        Raises:
            BundleError: one of them is damaged.
        """
        targets = [target for target in (self.manifest.targets if self.manifest else ()) if target.name not in replaced]
        for target in targets:
            for name, entry in target.all_engines():
                if not self.engine(entry.key):
                    raise BundleError(
                        f"the target {target.name}, which this build would keep, is damaged",
                        got=f"a file of its {name} is missing or altered",
                        fix="name its GPU in this build too, or pull it (sdxl-trt ship pull), or choose another -o",
                    )
        return tuple(targets)

    def engine(self, key: str) -> EngineEntry | None:
        """The engine of that key, if it is there and every byte of it is right."""
        entry = self._engines.get(key)
        whole = entry is not None and all(self.sound(blob) for blob in (entry.file, *entry.weights))
        return entry if whole else None

    def record(self, entry: EngineEntry) -> None:
        """Remember a finished engine, whose files are in the bundle: for another model, or if this build is killed."""
        write_json(self._pending / f"{entry.key}.json", dataclasses.asdict(entry))
        self._engines[entry.key] = entry

    def sound(self, blob: Blob) -> bool:
        """A blob is there and its bytes are right; a file that is damaged is deleted. Each is read once per build."""
        if blob.sha256 not in self._sound:
            try:
                self._store.check(blob, "a file of the bundle")
            except BundleError:
                self._store.path(blob).unlink(missing_ok=True)
                return False
            self._sound.add(blob.sha256)
        return True

    def clear(self) -> None:
        """Forget unfinished builds: bundle.json now names everything that is of use."""
        shutil.rmtree(self._pending, ignore_errors=True)


def _check_same_model(bundle: Path, present: ModelSpec, wanted: ModelSpec) -> None:
    if present.content != wanted.content:
        raise BundleError(
            f"{bundle} is a bundle of another model",
            got=f"{present.name} (content {present.content[:12]})",
            expected=f"{wanted.name} (content {wanted.content[:12]}), or an empty folder",
            fix="choose another folder with -o",
        )
