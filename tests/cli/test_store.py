"""`sdxl-trt store`: what bundles take, what goes, what is damaged."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manifests import make_manifest, make_target

from sdxl_trt.bundle import Blob, BlobStore, Manifest, write_manifest
from sdxl_trt.bundle.housekeeping import begun_bundles, use
from sdxl_trt.paths import bundles_folder

Command = Callable[..., Any]
AVERAGE = 2**12
CONTENT = np.random.default_rng(0).integers(0, 256, 30 * AVERAGE, np.uint8).tobytes()
LICENCE, WEIGHTS = b"a licence", CONTENT[: 5 * AVERAGE]


def put_chunks(store: BlobStore, content: bytes) -> Blob:
    with store.chunk_writer() as writer:
        writer.write(content)
    return writer.blob()


def add(name: str, *plans: bytes, linked: bool = True) -> tuple[BlobStore, Manifest]:
    """A bundle of the data folder: a target for the processor, and one for each plan."""
    bundle = bundles_folder() / name
    others = [BlobStore(path) for path in begun_bundles(bundles_folder())] if linked else []
    store = BlobStore(bundle, average=AVERAGE)
    with store.lock():
        files = {}
        for content in (LICENCE, WEIGHTS, b"a graph"):
            blob = store.put_bytes(content)
            if any(other.whole(blob) for other in others):
                store.path(blob).unlink()
                assert store.adopt(blob, others)
            files[content] = blob
        targets = [_target("cpu", files[b"a graph"], files[WEIGHTS])]
        targets += [_target(f"rtx{i}", put_chunks(store, plan)) for i, plan in enumerate(plans)]
        manifest = dataclasses.replace(make_manifest(*targets), files={"licence/LICENSE": files[LICENCE]})
        write_manifest(bundle, manifest)
    return store, manifest


def _target(name: str, file: Blob, *weights: Blob) -> Any:
    target = make_target(name, flavour="onnxruntime" if weights else "tensorrt-rtx")
    entry = dataclasses.replace(target.engines["vae_decoder"], file=file, weights=weights)
    return dataclasses.replace(target, engines={"vae_decoder": entry})


def test_no_bundles(sdxl_trt: Command) -> None:
    assert sdxl_trt("store", "list").out.endswith("0 bundles, 0.0 MB on disk\n")
    for command in ("gc", "verify"):
        assert sdxl_trt("store", command, "--json").json["bundles"] == []
        assert sdxl_trt("store", command).status == 0


def test_list_says_what_is_shared(sdxl_trt: Command) -> None:
    small = len(LICENCE) + len(b"a graph")
    store, _ = add("one", CONTENT, CONTENT)
    add("two")
    (store.folder / ("0" * 64)).write_bytes(b"of nobody")
    outcome = sdxl_trt("store", "list", "--json")
    one, two = outcome.json["bundles"]
    assert (one["model"], one["targets"], one["not_pulled"]) == ("small", ["cpu", "rtx0", "rtx1"], [])
    assert one["content"] == 3 * len(LICENCE) + len(b"a graph") + len(WEIGHTS) + 2 * len(CONTENT)
    assert one["disk"] == small + len(WEIGHTS) + len(CONTENT) + 9
    assert one["unused"] == 9
    assert one["alone"] == len(CONTENT) + 9
    assert (two["disk"], two["alone"], two["unused"]) == (small + len(WEIGHTS), 0, 0)
    assert outcome.json["disk"] == one["disk"]
    text = sdxl_trt("store", "list").out
    assert "2 bundles, 0.1 MB on disk" in text
    assert "\n  rtx1\n" in text


def test_list_of_what_is_not_whole(sdxl_trt: Command) -> None:
    store, manifest = add("pulled", CONTENT)
    for chunk in manifest.targets[1].engines["vae_decoder"].file.chunks:
        store.path(chunk).unlink()
    begun = BlobStore(bundles_folder() / "begun")
    with begun.lock():
        begun.put_bytes(b"some")
    broken = bundles_folder() / "broken"
    broken.mkdir()
    (broken / "bundle.json").write_text("{")
    (bundles_folder() / "something else").mkdir()
    rows = {Path(row["bundle"]).name: row for row in sdxl_trt("store", "list", "--json").json["bundles"]}
    assert set(rows) == {"pulled", "begun", "broken"}
    assert rows["pulled"]["not_pulled"] == ["rtx0"]
    assert rows["pulled"]["content"] == rows["pulled"]["disk"]
    assert (rows["begun"]["model"], rows["begun"]["unused"]) == (None, 4)
    assert "damaged or was altered" in rows["broken"]["error"]["what"]
    text = sdxl_trt("store", "list").out
    for words in ("rtx0: not pulled", "begun, not finished", "is damaged"):
        assert words in text


def test_gc_removes_what_nobody_names(sdxl_trt: Command) -> None:
    store, manifest = add("one", CONTENT)
    before = sorted(path.name for path in store.folder.iterdir())
    store.put_bytes(b"of nobody")
    (store.folder / ".sdxl-trt-tmp-1").write_bytes(b"half")
    pending = store.bundle / ".pending"
    pending.mkdir()
    (pending / "record.json").write_text("{}")
    begun = BlobStore(bundles_folder() / "begun")
    with begun.lock():
        begun.put_bytes(b"some")
    kept = BlobStore(bundles_folder() / "kept")
    with kept.lock():
        kept.put_bytes(b"some")
    (kept.bundle / "notes").write_text("of somebody")
    outcome = sdxl_trt("store", "gc", "--json")
    assert outcome.status == 0
    freed = {Path(row["bundle"]).name: row["freed"] for row in outcome.json["bundles"]}
    assert freed == {"one": 9 + 4, "begun": 4, "kept": 4}
    assert sorted(path.name for path in store.folder.iterdir()) == before
    assert not pending.exists()
    assert not begun.bundle.exists()
    assert [path.name for path in kept.bundle.iterdir()] == ["notes"]
    assert use(store.bundle, manifest).unused == 0
    assert sdxl_trt("store", "verify").status == 0


def test_gc_makes_one_of_equal_files(sdxl_trt: Command) -> None:
    one, _ = add("one", CONTENT)
    two, _ = add("two", CONTENT, linked=False)
    altered = two.path(two.put_bytes(WEIGHTS))
    altered.write_bytes(bytes(len(WEIGHTS)))
    rows = {Path(row["bundle"]).name: row for row in sdxl_trt("store", "gc", "--json").json["bundles"]}
    assert rows["one"]["linked"] == 0
    assert rows["two"]["linked"] == len(CONTENT) + len(WEIGHTS) + len(LICENCE) + len(b"a graph")
    for path in one.folder.iterdir():
        assert path.stat().st_ino == (two.folder / path.name).stat().st_ino
    assert sdxl_trt("store", "verify").status == 0, "a sound file took the altered one's place"
    assert "0.0 MB removed, 0.0 MB shared now" in sdxl_trt("store", "gc").out


def test_gc_leaves_what_is_written_or_cannot_be_read(sdxl_trt: Command) -> None:
    store, _ = add("one", CONTENT)
    store.put_bytes(b"of nobody")
    broken, _ = add("broken")
    (broken.bundle / "bundle.json").write_text("{")
    files = sorted(broken.folder.iterdir())
    with store.lock():
        outcome = sdxl_trt("store", "gc")
    assert outcome.status == 1
    assert "one: left as it is: another process is writing" in outcome.err
    assert "broken: left as it is" in outcome.err
    assert use(store.bundle, None).disk > len(CONTENT) + 9
    assert sorted(broken.folder.iterdir()) == files


def test_gc_works_on_the_folder_given(sdxl_trt: Command, tmp_path: Path) -> None:
    store, _ = add("one")
    store.put_bytes(b"of nobody")
    assert sdxl_trt("store", "gc", tmp_path, "--json").json["bundles"] == []
    assert sdxl_trt("store", "gc", bundles_folder(), "--json").json["bundles"][0]["freed"] == 9


@pytest.mark.parametrize("damage", ["flipped", "shorter", "gone", "a link", "a folder"])
def test_verify_finds_damage(sdxl_trt: Command, damage: str) -> None:
    add("one", CONTENT)
    store, manifest = add("two", CONTENT[::-1])
    assert sdxl_trt("store", "verify").out.count("every hash right") == 2
    path = store.path(manifest.targets[1].engines["vae_decoder"].file.chunks[2])
    content = path.read_bytes()
    path.unlink()
    if damage == "a link":
        path.symlink_to(store.path(manifest.files["licence/LICENSE"]))
    elif damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"flipped": bytes([content[0] ^ 1]) + content[1:], "shorter": content[:-1]}[damage])
    outcome = sdxl_trt("store", "verify", "--json")
    assert outcome.status == 1
    one, two = outcome.json["bundles"]
    assert one["errors"] == []
    assert all(str(path) in error["what"] for error in two["errors"])
    assert two["errors"]
    assert "fix: fetch or build the bundle again" in sdxl_trt("store", "verify").out


def test_verify_passes_what_was_not_pulled(sdxl_trt: Command) -> None:
    store, manifest = add("one", CONTENT)
    for chunk in manifest.targets[1].engines["vae_decoder"].file.chunks:
        store.path(chunk).unlink()
    assert sdxl_trt("store", "verify").status == 0
    inspected = sdxl_trt("inspect", store.bundle, "--verify")
    assert "not pulled: " in inspected.out
    assert "every hash right" in inspected.out
    assert sdxl_trt("inspect", store.bundle, "--json").json["not_pulled"] == ["rtx0"]
    store.path(manifest.files["licence/LICENSE"]).unlink()
    assert sdxl_trt("store", "verify").status == 1
    assert sdxl_trt("inspect", store.bundle, "--verify").status == 1


def test_run_says_how_to_pull(sdxl_trt: Command) -> None:
    store, manifest = add("one", CONTENT)
    for blob in manifest.targets[0].blobs():
        store.path(blob).unlink()
    version = importlib.metadata.version("onnxruntime")
    targets = (dataclasses.replace(manifest.targets[0], flavour_version=version), manifest.targets[1])
    write_manifest(store.bundle, dataclasses.replace(manifest, targets=targets))
    outcome = sdxl_trt("run", "a red circle", "--bundle", store.bundle)
    assert outcome.status == 1
    assert "for this host was not pulled" in outcome.err
    assert "cpu: not pulled: 2 of its 2 files are not here" in outcome.err
    assert f"fix: sdxl-trt ship pull REF -o {store.bundle}" in outcome.err


def test_a_manifest_that_cannot_be_read(sdxl_trt: Command) -> None:
    store, _ = add("one")
    (store.bundle / "bundle.json").write_text("{")
    outcome = sdxl_trt("store", "verify", "--json")
    assert outcome.status == 1
    assert "damaged" in outcome.json["bundles"][0]["errors"][0]["what"]
