"""Plans are written in chunks; what is mapped is whole, and names its chunks."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest

from sdxl_trt.bundle import Blob, BlobStore, EngineEntry, Manifest, read_manifest, write_manifest
from sdxl_trt.bundle.checked import CheckedBlob
from sdxl_trt.engines import build as building
from sdxl_trt.engines.build import build
from sdxl_trt.engines.targets import resolve_targets
from sdxl_trt.spec import Profile

AVERAGE = 2**12
GPUS = ["cpu", "rtx3060"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "BlobStore", functools.partial(BlobStore, average=AVERAGE))


def inodes(bundle: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in BlobStore(bundle).folder.iterdir()}


def plans(manifest: Manifest) -> dict[str, EngineEntry]:
    return manifest.targets[1].engines


def read(store: BlobStore, blob: Blob) -> bytes:
    with CheckedBlob(store, blob, "a plan") as plan:
        return b"".join(iter(lambda: plan.read(2**30), b""))


def test_plans_are_in_chunks_and_what_is_mapped_is_whole(export: Path, profile: Profile, tmp_path: Path) -> None:
    manifest, store = build(export, tmp_path, resolve_targets(GPUS), profile=profile), BlobStore(tmp_path)
    assert read_manifest(tmp_path) == manifest
    for name, entry in plans(manifest).items():
        assert len(entry.file.chunks) > 1, name
        assert not store.whole(entry.file)
        assert len(read(store, entry.file)) == entry.file.bytes
    mapped = [*manifest.files.values(), *manifest.targets[0].blobs()]
    for blob in mapped:
        store.verify(blob, "a mapped file")
        assert bool(blob.chunks) == (blob.bytes > AVERAGE)
    assert any(blob.chunks for blob in mapped)
    chunks = {chunk.sha256 for entry in plans(manifest).values() for chunk in entry.file.chunks}
    assert set(inodes(tmp_path)) == chunks | {blob.sha256 for blob in mapped}


def test_nothing_is_written_again(export: Path, profile: Profile, tmp_path: Path) -> None:
    first = build(export, tmp_path, resolve_targets(GPUS), profile=profile)
    before, seen = inodes(tmp_path), list[str]()
    again = build(export, tmp_path, resolve_targets(GPUS), profile=profile, progress=lambda s, d, t: seen.append(s))
    assert again == first
    assert inodes(tmp_path) == before
    assert not [stage for stage in seen if stage.startswith("build ")]


def test_a_damaged_chunk_is_built_again(export: Path, profile: Profile, tmp_path: Path) -> None:
    first, store = build(export, tmp_path, resolve_targets(GPUS), profile=profile), BlobStore(tmp_path)
    chunk = plans(first)["step"].file.chunks[-1]
    store.path(chunk).write_bytes(bytes(chunk.bytes))
    seen = list[str]()
    again = build(export, tmp_path, resolve_targets(GPUS), profile=profile, progress=lambda s, d, t: seen.append(s))
    assert {stage for stage in seen if stage.startswith("build ")} == {"build tensorrt-rtx-sm86 step"}
    for blob in again.blobs().values():
        store.check(blob, "a blob")


def test_bundles_beside_each_other_share_files(export: Path, profile: Profile, tmp_path: Path) -> None:
    one = build(export, tmp_path / "one", resolve_targets(GPUS), profile=profile)
    two = build(export, tmp_path / "two", resolve_targets(GPUS), profile=profile)
    shared = set(inodes(tmp_path / "one").values()) & set(inodes(tmp_path / "two").values())
    linked = [path for path in BlobStore(tmp_path / "two").folder.iterdir() if path.stat().st_ino in shared]
    assert {blob.sha256 for blob in two.files.values()} <= {path.name for path in linked}
    common = {c for e in plans(one).values() for c in e.file.chunks} & {
        c for e in plans(two).values() for c in e.file.chunks
    }
    print(f"chunks of plans that two builds have alike: {len(common)}")
    assert common
    assert {chunk.sha256 for chunk in common} <= {path.name for path in linked}


def test_a_bundle_of_an_earlier_version_learns_its_chunks(export: Path, profile: Profile, tmp_path: Path) -> None:
    manifest, store = build(export, tmp_path, resolve_targets(GPUS), profile=profile), BlobStore(tmp_path)

    def uncut(blob: Blob) -> Blob:
        store.join(blob, "a blob")
        return Blob(sha256=blob.sha256, bytes=blob.bytes)

    def plain(entry: EngineEntry) -> EngineEntry:
        return dataclasses.replace(entry, file=uncut(entry.file), weights=tuple(map(uncut, entry.weights)))

    targets = tuple(
        dataclasses.replace(target, engines={name: plain(entry) for name, entry in target.engines.items()})
        for target in manifest.targets
    )
    files = {name: uncut(blob) for name, blob in manifest.files.items()}
    write_manifest(tmp_path, dataclasses.replace(manifest, schema=3, files=files, targets=targets))
    seen = list[str]()
    again = build(export, tmp_path, resolve_targets(["cpu"]), profile=profile, progress=lambda s, d, t: seen.append(s))
    assert not [stage for stage in seen if stage.startswith("build ")]
    assert dataclasses.replace(again, created=manifest.created) == manifest
    assert all(store.whole(entry.file) for entry in plans(again).values())
