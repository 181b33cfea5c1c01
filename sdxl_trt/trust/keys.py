"""Key files: PEM, on the curve P-256, as openssl writes them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdxl_trt.errors import KeyFileError
from sdxl_trt.libraries import require
from sdxl_trt.trust.ownership import way_writable_by_others

CURVE = "secp256r1"
"""P-256, which openssl calls prime256v1."""

_MAX_BYTES = 2**16
_MAKE = "openssl ecparam -name prime256v1 -genkey -noout -out signing.pem"
_EXTRACT = "openssl ec -in signing.pem -pubout -out signing.pub"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key to check signatures with."""

    fingerprint: str
    """SHA-256 of `pem`: what `sha256sum` says of a file that openssl wrote."""
    pem: bytes = field(repr=False)
    source: str
    """Where it was found."""


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """A key to sign with."""

    pem: bytes = field(repr=False)
    """As it stands in its file, encrypted if it is so there."""
    password: bytes | None = field(repr=False)
    public: PublicKey


def read_public_keys(path: Path) -> tuple[PublicKey, ...]:
    """Every public key of a PEM file; text around them is left aside.

    Raises:
        KeyFileError: it cannot be read, others could write it, it holds none, something else too, or one on another
            curve.
        FlavourUnavailable: the library that reads keys is not installed.
    """
    text = _read(path)
    blocks = [(match[1], match[0] + b"\n") for match in _BLOCK.finditer(text)]
    others = [kind.decode() for kind, _ in blocks if kind != b"PUBLIC KEY"]
    if any("PRIVATE KEY" in kind for kind in others):
        raise _refuse(path, "a private key", "the public key", f"{_EXTRACT}, and keep the private one elsewhere")
    if others or not blocks:
        raise _refuse(path, f"PEM of {', '.join(others)}" if others else "no key", "public keys in PEM", _EXTRACT)
    try:
        if reason := way_writable_by_others(path):
            raise _refuse(path, reason, "a file that nobody else could write or replace", "chmod go-w, or chown, that")
    except OSError as error:
        raise _refuse(path, error.strerror or str(error), "a file that can be looked at", "check the path") from error
    return tuple(_public_key(pem, path) for _, pem in blocks)


def _public_key(pem: bytes, path: Path) -> PublicKey:
    serialization = _serialization()
    try:
        key = serialization.load_pem_public_key(pem)
    except Exception as error:  # of several kinds, and not all of them its own
        raise _refuse(path, f"no key: {_first_line(error)}", "a public key in PEM", _EXTRACT) from error
    return _described(key, path)


def _described(key: Any, path: Path) -> PublicKey:
    """A public key on the right curve."""
    ec, serialization = require("cryptography.hazmat.primitives.asymmetric.ec", "read keys"), _serialization()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        kind = type(key).__name__.removeprefix("_").removesuffix("PublicKey")
        raise _refuse(path, f"a key of the kind {kind}", f"one on the curve P-256 ({CURVE})", _MAKE)
    if key.curve.name != CURVE:
        raise _refuse(path, f"a key on the curve {key.curve.name}", f"one on the curve P-256 ({CURVE})", _MAKE)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(fingerprint=hashlib.sha256(pem).hexdigest(), pem=pem, source=str(path))


def read_private_key(path: Path, password: Callable[[], str | None]) -> PrivateKey:
    """A private key, with its password if it is encrypted.

    Args:
        path: a PEM file that its owner alone may read.
        password: asked if the key is encrypted; None: there is none to be had.

    Raises:
        KeyFileError: it cannot be read, others may read it, it is no private key, one on another curve, or the
            password is wrong or missing.
        FlavourUnavailable: the library that reads keys is not installed.
    """
    pem = _read(path, private=True)
    secret = None
    try:
        key = _serialization().load_pem_private_key(pem, None)
    except TypeError:  # it is encrypted
        secret = _password(path, password)
        key = _decrypted(path, pem, secret)
    except Exception as error:  # of several kinds
        if any(match[1] == b"PUBLIC KEY" for match in _BLOCK.finditer(pem)):
            raise _refuse(path, "a public key", "the private key that belongs to it", "give that one") from error
        raise _refuse(path, f"no key: {_first_line(error)}", "a private key in PEM", _MAKE) from error
    if not hasattr(key, "public_key"):
        raise _refuse(path, f"a key of the kind {type(key).__name__}", f"one on the curve P-256 ({CURVE})", _MAKE)
    return PrivateKey(pem=pem, password=secret, public=_described(key.public_key(), path))


def _password(path: Path, ask: Callable[[], str | None]) -> bytes:
    secret = ask()
    if not secret:
        raise _refuse(
            path, "an encrypted key and no password", "its password", "SDXL_TRT_KEY_PASSWORD, or run it on a terminal"
        )
    return secret.encode()


def _decrypted(path: Path, pem: bytes, secret: bytes) -> Any:
    try:
        return _serialization().load_pem_private_key(pem, secret)
    except ValueError as error:
        raise _refuse(path, "an encrypted key and another password", "its password", "try again") from error


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _refuse(path, error.strerror or str(error), "a file that can be read", "check the path") from error
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _refuse(path, stat.filemode(mode), "a private key that its owner alone may read", f"chmod 600 {path}")
    if len(text) > _MAX_BYTES:
        raise _refuse(path, f"more than {_MAX_BYTES} bytes", "a key in PEM", _MAKE)
    return text


def _serialization() -> Any:
    return require("cryptography.hazmat.primitives.serialization", "read keys")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". See ")[0]


def _refuse(path: Path, got: str, expected: str, fix: str) -> KeyFileError:
    return KeyFileError(f"the key file {path} cannot be used", got=got, expected=expected, fix=fix)
