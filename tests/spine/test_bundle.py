"""The bundle: a strict manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from manifests import A, B, C, D, make_manifest, make_target

from sdxl_trt.bundle import (
    MANIFEST_NAME,
    Blob,
    Chunk,
    Manifest,
    Refiner,
    read_manifest,
    write_manifest,
)
from sdxl_trt.errors import BundleError


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


def cut(name: str, size: int) -> dict[str, Any]:
    """A chunk in JSON."""
    return {"sha256": name * 64, "bytes": size}


CUT = {**cut("9", 7), "chunks": [cut("e", 3), cut("f", 4)]}
LARGE = {**cut("9", 2**26 + 2), "chunks": [cut("e", 2**26 + 1), cut("f", 1)]}


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
        (changed("targets.0.profile.vae_tile", 6), "overlap by a quarter"),
        (changed("targets.0.profile.slots.min", 0), "0 < min"),
        (changed("targets.1.name", "one"), "two targets have the same name"),
        (changed(f"{ENGINE}.file.sha256", "../../etc/passwd"), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.sha256", "A" * 64), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.sha256", "a" * 64 + "\n"), "is not a SHA-256"),
        (changed(f"{ENGINE}.file.bytes", -1), "is no file size"),
        (changed(f"{ENGINE}.file.bytes", 2**60), "is no file size"),
        (changed(f"{ENGINE}.file.path", "/etc/passwd"), "unknown field 'path'"),
        (changed(f"{ENGINE}.file.bytes", 4), f"two files with SHA-256 {A.sha256}"),
        (changed(f"{ENGINE}.weights.0", CUT | {"bytes": 8}), "chunks of 7 bytes together in a file of 8"),
        (changed(f"{ENGINE}.weights.0", CUT | {"chunks": CUT["chunks"][:1], "bytes": 3}), "a single chunk"),
        (changed(f"{ENGINE}.weights.0.chunks", [cut("e", 0), cut("f", 3)]), "a chunk of 0 bytes"),
        (changed(f"{ENGINE}.weights.0.chunks", [cut("e", -1), cut("f", 4)]), "is no file size"),
        (changed(f"{ENGINE}.weights.0.chunks", [cut("../x", 1), cut("f", 2)]), "is not a SHA-256"),
        (changed(f"{ENGINE}.weights.0", CUT | {"chunks": [cut("f", 1), cut("f", 6)]}), "two sizes with SHA-256 ffff"),
        (changed(f"{ENGINE}.weights.0", CUT | {"chunks": [cut("a", 1), cut("f", 6)]}), "two sizes with SHA-256 aaaa"),
        (changed(f"{ENGINE}.weights.0.chunks", [cut("e", 1) | {"chunks": []}, cut("f", 2)]), "unknown field 'chunks'"),
        (changed(f"{ENGINE}.weights.0", LARGE), "a chunk of 67108865 bytes; they have 1 to 67108864"),
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


def test_chunks_come_back_as_they_were_written(tmp_path: Path) -> None:
    target = make_target("one")
    plan = Blob(sha256="9" * 64, bytes=7, chunks=(Chunk(sha256="e" * 64, bytes=3), Chunk(sha256="f" * 64, bytes=4)))
    engines = {"vae_decoder": dataclasses.replace(target.engines["vae_decoder"], file=plan, weights=())}
    manifest = make_manifest(dataclasses.replace(target, engines=engines), make_target("two"))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    one, two = manifest.targets
    assert set(manifest.blobs()) == {plan.sha256, A.sha256, B.sha256}
    assert set(manifest.blobs(one)) == {plan.sha256, A.sha256}
    assert set(manifest.blobs(two)) == {A.sha256, B.sha256}


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


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_bundles_of_schemas_before_are_read(schema: int, tmp_path: Path) -> None:
    target = make_target("one")
    if schema < 3:
        engines = {name: dataclasses.replace(entry, work=None) for name, entry in target.engines.items()}
        target = dataclasses.replace(target, engines=engines)
    manifest = dataclasses.replace(make_manifest(target), schema=schema)
    document = json.loads(json.dumps(dataclasses.asdict(manifest)).replace(', "chunks": []', ""))
    assert "chunks" not in str(document)
    for entry in document["targets"][0]["engines"].values():
        if schema < 3:
            del entry["work"]
    if schema == 1:
        del document["refiner"], document["targets"][0]["refiner"]
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("field", ["schema", "spec"])
def test_other_version_is_named_rather_than_its_differences(field: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"schema": 1, "spec": 1, field: 99, "tool": "9.9", "new": []}))
    with pytest.raises(BundleError, match=f"unknown {field} version") as caught:
        read_manifest(tmp_path)
    assert "9.9" in caught.value.fix


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle") as caught:
        read_manifest(tmp_path / "nothing")
    assert caught.value.fix.startswith("sdxl-trt build")


# Blobs
