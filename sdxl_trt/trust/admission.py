"""What a host with keys asks of a bundle before it opens it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdxl_trt.decode import DecodeError
from sdxl_trt.errors import NotTrusted
from sdxl_trt.files import no_links, why_unreadable
from sdxl_trt.trust.hosts import host_keys
from sdxl_trt.trust.keys import PublicKey
from sdxl_trt.trust.ownership import refuse_writable_by_others, way_writable_by_others
from sdxl_trt.trust.signature import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, read_claim
from sdxl_trt.trust.verifying import refuse, verify


def admit(bundle: Path, text: bytes, manifest_name: str, keys: Sequence[PublicKey] | None = None) -> PublicKey | None:
    """The key that vouches for a bundle; None on a host where no key is configured, which admits every bundle.

    Args:
        bundle: its folder.
        text: the bytes of its manifest, those that are parsed afterwards.
        manifest_name: the file that they were read from.
        keys: that are trusted; those of this host when not given.

    Raises:
        NotTrusted: it is unsigned, or not signed with one of these keys, or altered, or others could alter it.
        KeyFileError: a key is configured and cannot be used.
        FlavourUnavailable: a key is configured, and the library that checks signatures is not installed.
    """
    trusted = host_keys() if keys is None else keys
    if not trusted:
        return None
    refuse_writable_by_others(bundle, (manifest_name, SIGNATURE_NAME))
    return verify(text, read_signature(bundle), trusted, bundle)


def kept_safely(path: Path) -> bool:
    """False on a host with keys, of a file that others could write: for what was made here, and no key vouches for.

    Raises:
        OSError: the file is not there.
        KeyFileError: a key is configured and cannot be used.
    """
    return not host_keys() or way_writable_by_others(path) is None


def read_signature(bundle: Path) -> bytes | None:
    """The bytes of bundle.sig, at most one more than may be; None where there is none.

    Raises:
        NotTrusted: it is there and cannot be read, or is a link.
    """
    path = bundle / SIGNATURE_NAME
    try:
        with open(path, "rb", opener=no_links) as file:
            return file.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        got = f"{path}: {why_unreadable(error)}"
        raise refuse(bundle, got, "a signature that can be read", "fetch the bundle again") from error


def signer(bundle: Path) -> str | None:
    """The fingerprint of the key that a bundle says it is signed with, which proves nothing; None: it is unsigned.

    Raises:
        NotTrusted: there is a signature, and it cannot be used.
    """
    signature = read_signature(bundle)
    if signature is None:
        return None
    try:
        return read_claim(signature).key
    except DecodeError as error:
        raise NotTrusted(
            f"the signature of {bundle} cannot be used",
            got=str(error),
            expected="what sdxl-trt ship sign writes",
            fix="sign the bundle again",
        ) from error
