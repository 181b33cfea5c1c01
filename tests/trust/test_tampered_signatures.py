"""Signatures of a signed bundle, altered or exchanged: refused each time, for its own reason; no engine is opened."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import pytest
from alterations import (
    Cases,
    Change,
    Scene,
    as_link,
    as_pipe,
    attackers_engine,
    cases,
    envelope,
    overwrite,
    payload,
    refusal,
)
from signed_bundles import Reader, sign_bundle, write_bundle

from sdxl_trt.errors import NotTrusted
from sdxl_trt.trust import SIGNATURE_NAME

BROKEN = "does not hold"


def with_other_key(scene: Scene) -> None:
    sign_bundle(scene.bundle, scene.keys.other_private)


def with_other_key_in_anothers_name(scene: Scene) -> None:
    """Signed by an attacker, who says that it was the owner of the trusted key."""
    trusted = json.loads(scene.signature.read_text())["verificationMaterial"]
    with_other_key(scene)
    envelope(lambda document: document.update(verificationMaterial=trusted))(scene)


def digest_of_altered(statement: dict[str, Any], scene: Scene) -> None:
    """What the signature says is true of the altered bundle."""
    attackers_engine(scene)
    digest = hashlib.sha256(scene.manifest.read_bytes()).digest()
    statement["predicate"]["resources"][0]["digest"] = digest.hex()
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digest).hexdigest()


def resource(**changes: Any) -> Change:
    return payload(lambda statement, _: statement["predicate"]["resources"][0].update(changes))


def serialised(**changes: Any) -> Change:
    return payload(lambda statement, _: statement["predicate"]["serialization"].update(changes))


def in_envelope(**changes: Any) -> Change:
    return envelope(lambda document: document["dsseEnvelope"].update(changes))


def material(**changes: Any) -> Change:
    return envelope(lambda document: document["verificationMaterial"].update(changes))


def flip_signature(document: dict[str, Any]) -> None:
    signature = document["dsseEnvelope"]["signatures"][0]
    signature["sig"] = signature["sig"][:20] + ("A" if signature["sig"][20] != "A" else "B") + signature["sig"][21:]


def older(scene: Scene) -> None:
    """Another signature of the same key: of what the bundle was a year before."""
    before = scene.bundle.parent / "before"
    write_bundle(before, name="bundle", created="2025-01-02T03:04:05+00:00", chunked=True)
    sign_bundle(before, scene.keys.private)
    shutil.copy(before / SIGNATURE_NAME, scene.bundle)


SIGNATURES: Cases = {
    "taken away": (lambda scene: scene.signature.unlink(), "its signature was taken away"),
    "empty": (lambda scene: overwrite(scene.signature, b""), "not JSON"),
    "not JSON": (lambda scene: overwrite(scene.signature, b"signed"), "not JSON"),
    "a list": (lambda scene: overwrite(scene.signature, b"[]"), "no verificationMaterial"),
    "too long": (lambda scene: overwrite(scene.signature, b" " * 2**17), "more than the 65536 allowed"),
    "nested deeply": (lambda scene: overwrite(scene.signature, b"[" * 9999 + b"]" * 9999), "nested deeper"),
    "a key twice": (
        lambda scene: overwrite(scene.signature, scene.signature.read_bytes().replace(b"{", b'{"mediaType":"",', 1)),
        "'mediaType' stands twice",
    ),
    "another key's": (with_other_key, "which is not trusted here"),
    "another key's, in this one's name": (with_other_key_in_anothers_name, BROKEN),
    "another bundle's": (lambda scene: shutil.copy(scene.sibling / SIGNATURE_NAME, scene.bundle), "another bundle's"),
    "an older one's": (older, "another bundle's"),
    "one letter": (envelope(flip_signature), BROKEN),
    "no letter": (in_envelope(signatures=[{"sig": "", "keyid": ""}]), BROKEN),
    "no base64": (in_envelope(payload="§§"), "not base64"),
    "said of what was altered": (payload(digest_of_altered), BROKEN),
    "of other spacing": (payload(lambda _, __: None), BROKEN),
    "none": (in_envelope(signatures=[]), "0 signatures, not one"),
    "two": (envelope(lambda d: d["dsseEnvelope"]["signatures"].append({"sig": "", "keyid": ""})), "2 signatures"),
    "with a certificate": (
        envelope(lambda d: d.update(verificationMaterial={"x509CertificateChain": {"certificates": []}})),
        "not signed with a key: verificationMaterial has x509CertificateChain",
    ),
    "with key and certificate": (material(certificate={"rawBytes": ""}), "not signed with a key"),
    "of no key": (envelope(lambda d: d.update(verificationMaterial={"tlogEntries": []})), "no publicKey"),
    "of a key without a name": (material(publicKey={}), "no publicKey.hint"),
    "of a key whose name is a number": (material(publicKey={"hint": 1}), "hint is not str"),
    "another media type": (envelope(lambda d: d.update(mediaType="application/json")), "mediaType is"),
    "another payload type": (in_envelope(payloadType="text/plain"), "dsseEnvelope.payloadType is"),
    "another statement": (payload(lambda s, _: s.update(_type="other")), "_type is 'other'"),
    "of the library's first form": (
        payload(lambda s, _: s.update(predicateType="https://model_signing/Digests/v0.1")),
        "predicateType is",
    ),
    "another digest": (resource(algorithm="blake2b"), "algorithm is 'blake2b', not 'sha256'"),
    "another digest of all": (serialised(hash_type="blake3"), "hash_type is 'blake3'"),
    "of shards": (serialised(method="shards"), "method is 'shards'"),
    "that leaves files out": (serialised(ignore_paths=["."]), BROKEN),
    "of another file": (resource(name="other.json"), "name is 'other.json', not '.'"),
    "of two files": (
        payload(lambda s, _: s["predicate"]["resources"].append(s["predicate"]["resources"][0])),
        "2 files, not one",
    ),
    "of no file": (payload(lambda s, _: s["predicate"].update(resources=[])), "0 files, not one"),
    "a link": (lambda scene: as_link(scene.signature), "bundle.sig is a symbolic link"),
    "a pipe": (lambda scene: as_pipe(scene.signature), "bundle.sig is neither file nor folder"),
}


@pytest.mark.parametrize(("change", "reason"), cases(SIGNATURES))
def test_signature(scene: Scene, reader: Reader, change: Change, reason: str) -> None:
    change(scene)
    error = refusal(scene, reader)
    assert reason in error.got
    assert isinstance(error, NotTrusted)
    assert reader.deserialised == 0
