"""bundle.sig: what it says, before anybody believes it.

It is what model-signing writes for one file and a key: a sigstore bundle around an in-toto statement that holds the
file's SHA-256. Other things such a bundle can hold (certificates, other digests, several files or signatures) are
refused here by name, so that the library meets nothing but what it was tried with.

Formats: https://docs.sigstore.dev/about/bundle/, https://github.com/secure-systems-lab/dsse,
https://github.com/in-toto/attestation/tree/main/spec/v1
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from sdxl_trt.decode import DecodeError, loads

SIGNATURE_NAME = "bundle.sig"
MAX_SIGNATURE_BYTES = 2**16

_ENVELOPE: dict[tuple[str | int, ...], Any] = {
    ("mediaType",): "application/vnd.dev.sigstore.bundle.v0.3+json",
    ("dsseEnvelope", "payloadType"): "application/vnd.in-toto+json",
}
_STATEMENT: dict[tuple[str | int, ...], Any] = {
    ("_type",): "https://in-toto.io/Statement/v1",
    ("predicateType",): "https://model_signing/signature/v1.0",
    ("predicate", "serialization", "method"): "files",
    ("predicate", "serialization", "hash_type"): "sha256",
    ("predicate", "resources", 0, "algorithm"): "sha256",
    ("predicate", "resources", 0, "name"): ".",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a signature says: that the owner of a key signed a file."""

    key: str
    """The public key's fingerprint."""
    sha256: str
    """Of the file."""


def read_claim(signature: bytes) -> Claim:
    """What a signature says; nothing of it is proven.

    Raises:
        DecodeError: it is no signature of one file with one key; says what differs.
    """
    envelope = loads(signature, max_bytes=MAX_SIGNATURE_BYTES)
    material = _at(envelope, dict, "verificationMaterial")
    if others := sorted(set(material) - {"publicKey", "tlogEntries"}):
        raise DecodeError(f"it is not signed with a key: verificationMaterial has {', '.join(others)}")
    _expect(envelope, _ENVELOPE)
    _only(_at(envelope, list, "dsseEnvelope", "signatures"), "signature")
    statement = _statement(_at(envelope, str, "dsseEnvelope", "payload"))
    _only(_at(statement, list, "predicate", "resources"), "file")
    _expect(statement, _STATEMENT)
    return Claim(
        key=_at(material, str, "publicKey", "hint"), sha256=_at(statement, str, "predicate", "resources", 0, "digest")
    )


def _statement(payload: str) -> Any:
    try:
        text = base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise DecodeError(f"its payload is not base64: {error}") from error
    return loads(text, max_bytes=MAX_SIGNATURE_BYTES)


def _expect(value: Any, fields: dict[tuple[str | int, ...], Any]) -> None:
    for path, expected in fields.items():
        found = _at(value, str, *path)
        if found != expected:
            raise DecodeError(f"{_dotted(path)} is {found[:80]!r}, not {expected!r}")


def _only(items: list[Any], what: str) -> None:
    if len(items) != 1:
        raise DecodeError(f"it holds {len(items)} {what}s, not one")


def _at(value: Any, kind: type, *path: str | int) -> Any:
    """What stands at a path, of a kind."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError) as error:
            raise DecodeError(f"it has no {_dotted(path)}") from error
    if not isinstance(value, kind):
        raise DecodeError(f"{_dotted(path)} is not {kind.__name__}")
    return value


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
