"""Manifests of a signed bundle, altered in every way that comes to mind: refused each time, for its own reason.

`Reader` is a host with a GPU whose engine library keeps what it is given: of what was altered, no byte reaches it.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from alterations import Cases, Change, Scene, attackers_engine, cases, edit, refusal, replaced, text
from signed_bundles import Reader

from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.errors import NotTrusted

ALTERED = "altered after it was signed"


def test_the_bundle_as_it_was_signed_runs(scene: Scene, reader: Reader) -> None:
    """Else what follows would prove nothing."""
    assert reader.open(scene.bundle).name == "gpu"
    assert reader.deserialised == 3
    sizes = [scene.engine(graph)["bytes"] for graph in ("step", "vae_decoder", "vae_encoder")]
    assert sum(map(len, reader.trt.read)) >= sum(sizes)


def first(document: dict[str, Any], graph: str = "vae_decoder") -> dict[str, Any]:
    """An engine's file in a manifest."""
    file: dict[str, Any] = document["targets"][0]["engines"][graph]["file"]
    return file


def engines(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["targets"][0]["engines"]
    return found


def exchange(document: dict[str, Any], one: str, other: str) -> None:
    """The files of two engines."""
    both = engines(document)
    both[one]["file"], both[other]["file"] = both[other]["file"], both[one]["file"]


def other_bundles_target(scene: Scene) -> None:
    """With all of its files."""
    document = json.loads(scene.manifest.read_text())
    document["targets"][0] = json.loads((scene.sibling / MANIFEST_NAME).read_text())["targets"][0]
    scene.manifest.write_text(json.dumps(document))
    shutil.copytree(scene.sibling / "blobs", scene.bundle / "blobs", dirs_exist_ok=True)


MANIFESTS: Cases = {
    "one bit": (text(lambda data: data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]), ALTERED),
    "a blank at the end": (text(lambda data: data + b" "), ALTERED),
    "cut off": (text(lambda data: data[:-1]), ALTERED),
    "empty": (text(lambda _: b""), ALTERED),
    "another order of keys": (text(lambda data: json.dumps(json.loads(data)).encode()), ALTERED),
    "line ends of another system": (text(lambda data: data.replace(b"\n", b"\r\n")), ALTERED),
    "a byte order mark": (text(lambda data: b"\xef\xbb\xbf" + data), ALTERED),
    "never run, said to be accepted": (edit(lambda d: d["targets"][0].update(accepted=False)), ALTERED),
    "a later date": (edit(lambda d: d.update(created="2030-01-01T00:00:00+00:00")), ALTERED),
    "another size": (edit(lambda d: first(d).update(bytes=7)), ALTERED),
    "another GPU": (edit(lambda d: d["targets"][1].update(sms=[89])), ALTERED),
    "engines swapped": (edit(lambda d: exchange(d, "vae_decoder", "vae_encoder")), ALTERED),
    "chunks swapped": (edit(lambda d: first(d, "step")["chunks"].reverse()), ALTERED),
    "targets swapped": (edit(lambda d: d["targets"].reverse()), ALTERED),
    "a target of another signed bundle": (other_bundles_target, ALTERED),
    "an engine of the attacker's": (attackers_engine, ALTERED),
    "the manifest of another signed bundle": (
        lambda scene: shutil.copy(scene.sibling / MANIFEST_NAME, scene.bundle),
        ALTERED,
    ),
    # What is hostile stays so when a key that is trusted signed it.
    "a hash that leads up": (edit(lambda d: first(d).update(sha256="../" * 20 + "etc/passwd"), signed=True), "SHA-256"),
    "an absolute path": (edit(lambda d: first(d).update(sha256="/etc/passwd"), signed=True), "'/etc/passwd' is not"),
    "a path of its own": (edit(lambda d: first(d).update(path="/etc/passwd"), signed=True), "unknown field 'path'"),
    "a name that leads up": (edit(lambda d: d["targets"][0].update(name="../up"), signed=True), "not a target's name"),
    "a name with a NUL": (edit(lambda d: d["targets"][0].update(name="a\0b"), signed=True), "not a target's name"),
    "a hash in capitals": (edit(lambda d: first(d).update(sha256="A" * 64), signed=True), "is not a SHA-256"),
    "a key twice": (text(replaced(rb'"accepted": true', b'"accepted": true, "accepted": false'), signed=True), "twice"),
    "NaN": (text(replaced(rb'"scaling_factor": [0-9.]+', b'"scaling_factor": NaN'), signed=True), "NaN is not"),
    "infinity": (text(replaced(rb'"scaling_factor": [0-9.]+', b'"scaling_factor": -Infinity'), signed=True), "-Infini"),
    "a number too large": (
        text(replaced(rb'"scaling_factor": [0-9.]+', b'"scaling_factor": 1e999'), signed=True),
        "not finite",
    ),
    "a number of many digits": (text(replaced(rb'"bytes": \d+', b'"bytes": ' + b"9" * 5000), signed=True), "not JSON"),
    "a number below zero": (edit(lambda d: first(d).update(bytes=-1), signed=True), "-1 is no file size"),
    "a file of an exabyte": (edit(lambda d: first(d).update(bytes=2**60), signed=True), "is no file size"),
    "a truth for a number": (edit(lambda d: first(d).update(bytes=True), signed=True), "True is not int"),
    "nested deeply": (text(lambda _: b"[" * 100_000 + b"]" * 100_000, signed=True), "nested deeper"),
    "not UTF-8": (text(replaced(b'"small"', b'"\xff\xfe"'), signed=True), "not JSON"),
    "not JSON": (text(lambda _: b"bundle", signed=True), "not JSON"),
    "too long": (text(lambda data: data + b" " * 2**24, signed=True), ALTERED),
    "of a schema to come": (edit(lambda d: d.update(schema=99), signed=True), "99"),
    "two targets of a name": (edit(lambda d: d["targets"][1].update(name="gpu"), signed=True), "the same name"),
    "chunks that are too much": (
        edit(lambda d: first(d, "step")["chunks"].append({"sha256": "e" * 64, "bytes": 9}), signed=True),
        "chunks of",
    ),
    "a chunk of a gigabyte": (
        edit(
            lambda d: first(d, "step").update(
                bytes=2**30 + 1, chunks=[{"sha256": "e" * 64, "bytes": 2**30}, {"sha256": "f" * 64, "bytes": 1}]
            ),
            signed=True,
        ),
        "a chunk of 1073741824 bytes",
    ),
    "two sizes of one hash": (
        edit(lambda d: engines(d)["vae_encoder"]["file"].update(sha256=first(d)["sha256"], bytes=1), signed=True),
        "two files with SHA-256",
    ),
    "no engine of that name": (edit(lambda d: engines(d).pop("vae_decoder"), signed=True), "no vae_decoder"),
}


@pytest.mark.parametrize(("change", "reason"), cases(MANIFESTS))
def test_manifest(scene: Scene, reader: Reader, change: Change, reason: str) -> None:
    change(scene)
    error = refusal(scene, reader)
    assert reason in str(error)
    assert isinstance(error, NotTrusted) == (reason == ALTERED)
    assert reader.deserialised == 0 or reason == "no vae_decoder"
