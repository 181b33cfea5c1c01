"""Checking a signature."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sdxl_trt.decode import DecodeError
from sdxl_trt.errors import NotTrusted
from sdxl_trt.trust.keys import PublicKey
from sdxl_trt.trust.library import in_memory, model_signing
from sdxl_trt.trust.signature import SIGNATURE_NAME, Claim, read_claim

_FETCH = "fetch the bundle again from who signed it"


def verify(text: bytes, signature: bytes | None, keys: Sequence[PublicKey], where: Path | str) -> PublicKey:
    """The key that signed a bundle.json.

    Args:
        text: the bytes of bundle.json, those that are parsed afterwards.
        signature: the bytes of bundle.sig; None where there is none.
        keys: that are trusted; one of them is enough.
        where: the bundle, for messages.

    Raises:
        NotTrusted: none of these keys signed these bytes; says what is wrong.
        FlavourUnavailable: the library that checks is not installed.
    """
    if signature is None:
        raise refuse(
            where,
            f"no {SIGNATURE_NAME}: the bundle is not signed, or its signature was taken away",
            f"{_expected(keys)}, since this host has keys",
            f"sdxl-trt ship sign {where} --key PRIVATE.pem, by whom such a key belongs to",
        )
    claim, key = _claimed(signature, keys, where)
    found = hashlib.sha256(text).hexdigest()
    if found != claim.sha256:
        raise refuse(
            where,
            f"a bundle.json with SHA-256 {found}: altered after it was signed, or the signature is another bundle's",
            f"SHA-256 {claim.sha256[:80]}, which {SIGNATURE_NAME} is for",
            _FETCH,
        )
    _check(text, signature, key, where)
    return key


def _claimed(signature: bytes, keys: Sequence[PublicKey], where: Path | str) -> tuple[Claim, PublicKey]:
    """What a signature says, and the trusted key that it says made it."""
    try:
        claim = read_claim(signature)
    except DecodeError as error:
        raise refuse(where, f"a {SIGNATURE_NAME} that cannot be used: {error}", _expected(keys), _FETCH) from error
    key = next((key for key in keys if key.fingerprint == claim.key), None)
    if key is None:
        raise refuse(
            where,
            f"signed with the key {claim.key[:80]!r}, which is not trusted here",
            _expected(keys),
            f"{_FETCH}; if that key is to be trusted, add it (docs/trust.md)",
        )
    return claim, key


def _check(text: bytes, signature: bytes, key: PublicKey, where: Path | str) -> None:
    """The cryptography, and once more all that a signature says."""
    library = model_signing()
    # Memory is reached through links in /proc.
    hashing = library.hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False).set_allow_symlinks(True)
    try:
        with in_memory(text) as file, in_memory(signature) as signed, in_memory(key.pem) as public:
            config = library.verifying.Config().set_hashing_config(hashing)
            config.use_elliptic_key_verifier(public_key=public).verify(file, signed)
    except Exception as error:  # a hostile signature makes the library raise what it likes
        reason = f"{type(error).__name__} {str(error)[:200]}".strip()
        raise refuse(
            where, f"a signature that does not hold ({reason})", f"one made with the key {key.fingerprint}", _FETCH
        ) from error


def _expected(keys: Sequence[PublicKey]) -> str:
    return "signed with " + " or ".join(f"{key.fingerprint} ({key.source})" for key in keys)


def refuse(where: Path | str, got: str, expected: str, fix: str) -> NotTrusted:
    """The error for a bundle that nobody vouches for."""
    return NotTrusted(f"{where} is not trusted", got=got, expected=expected, fix=fix)
