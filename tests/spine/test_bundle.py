"""The bundle: a strict manifest, files by content, and the choice of a target."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdxl_trt.bundle import (
    MANIFEST_NAME,
    Blob,
    BlobStore,
    EngineEntry,
    Host,
    Manifest,
    Refiner,
    Target,
    choose_target,
    read_manifest,
    write_manifest,
)
from sdxl_trt.errors import BundleError, NoTargetForHost, OutputError
from sdxl_trt.spec import ModelSpec, Profile, TensorSpec, Term, UNetSpec, VaeSpec, Work

A, B, C, D = (Blob(sha256=letter * 64, bytes=3) for letter in "abcd")


def make_target(name: str, **changes: Any) -> Target:
    entry = EngineEntry(
        key="c" * 64,
        file=A,
        weights=(B,),
        inputs=(TensorSpec(name="latents", dtype="float32", shape=("slots", 4, "height", "width")),),
        outputs=(TensorSpec(name="image", dtype="float32", shape=("slots", 3, "8*height", "8*width")),),
        work=Work(
            parameters=10,
            weights=40,
            operation_terms=(Term(coefficient=2.5, powers={"slots": 1, "height": 2, "width": 2}),),
            traffic_terms=(Term(coefficient=3.0, powers={}),),
            live_terms=((Term(coefficient=1.0, powers={"slots": 1}),),),
        ),
    )
    target = Target(
        name=name,
        flavour="onnxruntime",
        flavour_version="1.31.1",
        sms=(),
        processor="x86_64",
        precision="float32",
        profile=Profile.make(smallest=(64, 64), best=(128, 128), largest=(192, 192), batch=2),
        accepted=True,
        engines={"vae_decoder": entry},
    )
    return dataclasses.replace(target, **changes)


def make_manifest(*targets: Target) -> Manifest:
    model = ModelSpec(
        name="small",
        content="d" * 64,
        kind="base",
        text_encoders=(),
        unet=UNetSpec(channels=4, text=8, pooled=8, time_ids=6, guidance_embedding=0, sample_size=16),
        vae=VaeSpec(scaling_factor=0.13025, force_upcast=True, latents_mean=(0.5, -1.0)),
        zero_negative=True,
        scheduler={"_class_name": "EulerDiscreteScheduler", "trained_betas": None, "nested": {"list": [1, 2.5, "x"]}},
    )
    files = {"licence/LICENSE.md": A}
    return Manifest(tool="0.1.0", created="2026-01-02T03:04:05+00:00", model=model, files=files, targets=targets)


# The manifest


def test_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = make_manifest(make_target("one"), make_target("two", sms=(86, 89)))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    text = (tmp_path / MANIFEST_NAME).read_bytes()
    write_manifest(tmp_path, read_manifest(tmp_path))
    assert (tmp_path / MANIFEST_NAME).read_bytes() == text
    assert set(manifest.blobs()) == {A.sha256, B.sha256}


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the field at `path`; `...` removes it."""
    *parents, last = path.split(".")

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for part in parents:
            place = place[int(part) if part.isdigit() else part]
        key: Any = int(last) if last.isdigit() else last
        if value is ...:
            del place[key]
        else:
            place[key] = value

    return change


ENGINE = "targets.0.engines.vae_decoder"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("extra", 1), "unknown field 'extra'"),
        (changed("model", ...), "field 'model' is missing"),
        (changed("model.unet.channels", "4"), "$.model.unet.channels: '4' is not int"),
        (changed("model.unet.channels", True), "$.model.unet.channels: True is not int"),
        (changed("targets", {}), "$.targets: {} is not list"),
        (changed("targets.0.name", "../up"), "'../up' is not a target's name"),
        (changed("targets.0.name", ""), "is not a target's name"),
        (changed("targets.0.accepted", 1), "$.targets[0].accepted: 1 is not bool"),
        (changed("targets.0.sms", [8.6]), "$.targets[0].sms[0]: 8.6 is not int"),
        (changed("targets.0.profile.width.min", 99), "min ≤ opt ≤ max"),
        (changed("targets.0.profile.slots.min", 0), "0 < min"),
        (changed("targets.1.name", "one"), "two targets have the same name"),
        (changed(f"{ENGINE}.file.sha256", "../../etc/passwd"), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.sha256", "A" * 64), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.sha256", "a" * 64 + "\n"), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.bytes", -1), "is no file size"),
        (changed(f"{ENGINE}.file.bytes", 2**60), "is no file size"),
        (changed(f"{ENGINE}.file.path", "/etc/passwd"), "unknown field 'path'"),
        (changed(f"{ENGINE}.key", "x"), "is not a SHA-256"),
        (changed(f"{ENGINE}.work.weights", -1), "-1 bytes of weights"),
        (changed(f"{ENGINE}.work.parameters", 2**50), "parameters"),
        (changed(f"{ENGINE}.work.operation_terms.0.coefficient", 1e300), "1e+300 is no coefficient"),
        (changed(f"{ENGINE}.work.operation_terms.0.coefficient", "1"), "'1' is not float"),
        (changed(f"{ENGINE}.work.operation_terms.0.powers.height", 5), "'height' to the power 5"),
        (changed(f"{ENGINE}.work.operation_terms.0.powers.height", 0), "'height' to the power 0"),
        (changed(f"{ENGINE}.work.operation_terms.0.powers", {"depth": 1}), "'depth' to the power 1"),
        (changed(f"{ENGINE}.work.live_terms", [[]] * 65), "more than 64 terms"),
        (changed(f"{ENGINE}.work.traffic_terms", [{"coefficient": 1, "powers": {}}] * 65), "more than 64 terms"),
        (changed(f"{ENGINE}.inputs.0.shape.0", None), "$.targets[0].engines.vae_decoder.inputs[0].shape[0]"),
    ],
)
def test_altered_manifest_is_refused(change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    write_manifest(tmp_path, make_manifest(make_target("one"), make_target("two")))
    document = json.loads((tmp_path / MANIFEST_NAME).read_text())
    change(document)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="damaged or was altered") as caught:
        read_manifest(tmp_path)
    assert says in caught.value.got
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "not dict"),
        (b'{"schema": 1, "schema": 1}', "'schema' stands twice"),
        (b'{"schema": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"schema": 1' + b"0" * 10_000 + b"}", "not JSON"),
        (b" " * (16 * 2**20 + 1), "more than the 16777216 allowed"),
    ],
)
def test_hostile_text_is_refused(text: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(BundleError, match="damaged or was altered") as caught:
        read_manifest(tmp_path)
    assert says in caught.value.got


def with_refiner(**changes: Any) -> Manifest:
    """A model and a refiner of it."""
    model = make_manifest().model
    refiner = dataclasses.replace(model, **{"name": "fine", "kind": "refiner", **changes})
    target = make_target("one")
    targets = (
        dataclasses.replace(target, refiner={"step": dataclasses.replace(target.engines["vae_decoder"], file=C)}),
    )
    files = {"licence/OTHER.md": D}
    return dataclasses.replace(make_manifest(), targets=targets, refiner=Refiner(model=refiner, files=files))


def test_a_refiner_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = with_refiner()
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert set(manifest.blobs()) == {blob.sha256 for blob in (A, B, C, D)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("refiner", None), "a refiner that is not there"),
        (changed("refiner.model.kind", "base"), "fine is no refiner"),
        (changed("model.kind", "refiner"), "small cannot have a refiner"),
        (changed("refiner.model.vae.scaling_factor", 1.0), "other latents"),
        (changed("refiner.model.unet.channels", 9), "other latents"),
        (changed("refiner.files", {"x": {"sha256": "../up", "bytes": 1}}), "is not a SHA-256"),
    ],
)
def test_what_is_no_refiner_is_named(change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    document = json.loads(json.dumps(dataclasses.asdict(with_refiner())))
    change(document)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is damaged or was altered") as caught:
        read_manifest(tmp_path)
    assert says in caught.value.got


@pytest.mark.parametrize("schema", [1, 2])
def test_bundles_of_schemas_before_are_read(schema: int, tmp_path: Path) -> None:
    target = make_target("one")
    engines = {name: dataclasses.replace(entry, work=None) for name, entry in target.engines.items()}
    manifest = dataclasses.replace(make_manifest(dataclasses.replace(target, engines=engines)), schema=schema)
    document = json.loads(json.dumps(dataclasses.asdict(manifest)))
    for entry in document["targets"][0]["engines"].values():
        del entry["work"]
    if schema == 1:
        del document["refiner"], document["targets"][0]["refiner"]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("field", ["schema", "spec"])
def test_other_version_is_named_rather_than_its_differences(field: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"schema": 1, "spec": 1, field: 4, "tool": "9.9", "new": []}))
    with pytest.raises(BundleError, match=f"unknown {field} version") as caught:
        read_manifest(tmp_path)
    assert "9.9" in caught.value.fix


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle") as caught:
        read_manifest(tmp_path / "nothing")
    assert caught.value.fix.startswith("sdxl-trt build")


# Blobs


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    store = BlobStore(tmp_path / "bundle")
    with store.lock():
        pass
    return store


def names(store: BlobStore) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


def test_blobs_are_named_by_their_content(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content" * 1000)
    copied, put = store.put_file(tmp_path / "source"), store.put_bytes(b"content" * 1000)
    assert copied == put
    assert names(store) == {put.sha256}
    assert store.has(put)
    assert store.verify(put, "a blob").read_bytes() == b"content" * 1000
    with store.writer() as writer:
        writer.write(b"content" * 400)
        writer.write(memoryview(b"content" * 600))
    assert writer.blob() == put
    assert oct(store.path(put).stat().st_mode)[-3:] == "644"


def test_empty_file(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    blob = store.put_file(tmp_path / "empty")
    assert blob.bytes == 0
    store.verify(blob, "a blob")


def test_failed_write_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    def write_half() -> None:
        with store.writer() as writer:
            writer.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "missing")
    assert names(store) == set()


def test_full_disk_is_one_clear_error(store: BlobStore) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught, store.writer():
        raise OSError(28, "No space left on device")
    assert caught.value.got == "No space left on device"
    assert names(store) == set()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"contenT"), "content with SHA-256"),
        (lambda path: path.write_bytes(b"content!"), "8 bytes"),
        (lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))), "symbolic link"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
    ],
    ids=["missing", "altered", "longer", "link", "folder"],
)
def test_damaged_blob_is_refused(store: BlobStore, damage: Callable[[Path], Any], says: str) -> None:
    blob = store.put_bytes(b"content")
    damage(store.path(blob))
    with pytest.raises(BundleError, match="the step engine is damaged") as caught:
        store.verify(blob, "the step engine")
    assert says in caught.value.got


def test_lock_admits_one_writer_and_clears_up(store: BlobStore) -> None:
    (store.folder / ".sdxl-trt-tmp-left").write_bytes(b"half")
    (store.bundle / ".sdxl-trt-tmp-left").write_bytes(b"half")
    with store.lock():
        assert names(store) == set()
        assert not list(store.bundle.glob(".sdxl-trt-tmp-*"))
        with pytest.raises(OutputError, match="another process is writing"), BlobStore(store.bundle).lock():
            pass
    with store.lock():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"), BlobStore(tmp_path / "bundle").lock():
        pass


def test_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "bundle").touch()
    with pytest.raises(OutputError, match="cannot write") as caught, BlobStore(tmp_path / "bundle").lock():
        pass
    assert "-o" in caught.value.fix


def test_only_wanted_blobs_are_kept(store: BlobStore) -> None:
    keep, drop = store.put_bytes(b"keep"), store.put_bytes(b"drop it")
    assert store.keep_only([keep]) == drop.bytes
    assert names(store) == {keep.sha256}


# The choice of a target

RTX_3060 = Host(processor="x86_64", flavours={"tensorrt-rtx": "1.7.1.116", "onnxruntime": "1.31.1"}, sm=86)
EXACT = make_target("exact", flavour="tensorrt-rtx", flavour_version="1.7.1.116", sms=(86, 89))
PORTABLE = make_target("portable", flavour="tensorrt-rtx", flavour_version="1.7.1.116")
CPU = make_target("cpu")


@pytest.mark.parametrize(
    ("targets", "host", "chosen"),
    [
        ([CPU, PORTABLE, EXACT], RTX_3060, EXACT),
        ([CPU, PORTABLE], RTX_3060, PORTABLE),
        ([CPU], RTX_3060, CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, sm=None), CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, sm=75), CPU),
        ([CPU, EXACT], dataclasses.replace(RTX_3060, flavours={"onnxruntime": "1.32.0"}), CPU),
    ],
)
def test_best_target_is_chosen(targets: list[Target], host: Host, chosen: Target) -> None:
    assert choose_target(make_manifest(*targets), host, Path("bundle")) is chosen


@pytest.mark.parametrize(
    ("target", "host", "reason"),
    [
        (EXACT, dataclasses.replace(RTX_3060, sm=75), "built for SM 86, SM 89, this host has SM 75"),
        (EXACT, dataclasses.replace(RTX_3060, sm=None), "this host has no NVIDIA GPU"),
        (PORTABLE, dataclasses.replace(RTX_3060, sm=None), "this host has no NVIDIA GPU"),
        (EXACT, dataclasses.replace(RTX_3060, flavours={}), "needs tensorrt-rtx 1.7.1.116"),
        (
            EXACT,
            dataclasses.replace(RTX_3060, flavours={"tensorrt-rtx": "1.8.0.1"}),
            "built with tensorrt-rtx 1.7.1.116, this host has 1.8.0.1",
        ),
        (CPU, dataclasses.replace(RTX_3060, processor="aarch64"), "built for a x86_64 processor"),
        (
            CPU,
            dataclasses.replace(RTX_3060, flavours={"onnxruntime": "1.30.0"}),
            "built with onnxruntime 1.31.1, this host has 1.30.0",
        ),
    ],
)
def test_refusal_says_what_differs(target: Target, host: Host, reason: str) -> None:
    with pytest.raises(NoTargetForHost) as caught:
        choose_target(make_manifest(target), host, Path("bundle"))
    assert caught.value.got.startswith(f"{target.name}: ")
    assert reason in caught.value.got
    assert caught.value.fix.startswith("sdxl-trt build")


def test_bundle_without_targets() -> None:
    with pytest.raises(NoTargetForHost, match="no target at all"):
        choose_target(make_manifest(), RTX_3060, Path("bundle"))


def test_blobs_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """An OCI image layout has a folder of the same name."""
    blob = tmp_path / "blobs" / "sha256" / ("0" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_text("a layer")
    with pytest.raises(OutputError, match="is not a bundle"), BlobStore(tmp_path).lock():
        pytest.fail("it was locked")
    assert blob.read_text() == "a layer"
