"""What a place offers under a reference: a bundle.json that this host accepts, and which of its targets are there."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle import MANIFEST_NAME, Manifest, parse_manifest
from sdxl_trt.bundle.manifest import MAX_MANIFEST_BYTES
from sdxl_trt.ship import oci
from sdxl_trt.ship.oci import Descriptor, ImageManifest, Index
from sdxl_trt.ship.references import Reference
from sdxl_trt.ship.remote import Remote
from sdxl_trt.ship.verified import read_small
from sdxl_trt.trust import PublicKey, host_keys, verify
from sdxl_trt.trust.signature import MAX_SIGNATURE_BYTES


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A bundle somewhere else."""

    digest: str
    """Of what the reference names."""
    text: bytes
    """bundle.json."""
    signature: bytes | None
    signer: PublicKey | None
    """Who vouches for `text`; None on a host without keys."""
    manifest: Manifest
    shipped: Manifest
    """The same with just the targets that are there."""


def look(reference: Reference, remote: Remote) -> Offer:
    """Fetch bundle.json, and accept it or not; nothing else is fetched before that.

    Raises:
        TransferError: there is no bundle, or it cannot be had.
        NotTrusted: this host has keys, and none of them vouches for it.
        BundleError: its bundle.json is damaged, hostile or of an unknown version.
    """
    where = str(reference)
    data = remote.resolve()
    first, names = _open(data, remote, where)
    layer, signed = (_layer(first, kind, where) for kind in (oci.BUNDLE_JSON, oci.SIGNATURE))
    if layer is None:
        raise oci.not_ours(where, f"no layer of media type {oci.BUNDLE_JSON}")
    text = read_small(remote.fetch(layer), layer, where, most=MAX_MANIFEST_BYTES)
    signature = read_small(remote.fetch(signed), signed, where, most=MAX_SIGNATURE_BYTES) if signed else None
    signer = accept(text, signature, where)
    manifest = parse_manifest(text, Path(MANIFEST_NAME))
    targets = tuple(target for target in manifest.targets if target.name in names)
    if not targets:
        raise oci.not_ours(where, f"none of the targets {', '.join(target.name for target in manifest.targets)}")
    return Offer(
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        text=text,
        signature=signature,
        signer=signer,
        manifest=manifest,
        shipped=dataclasses.replace(manifest, targets=targets),
    )


def accept(text: bytes, signature: bytes | None, where: str) -> PublicKey | None:
    """Decide on a bundle.json, by the very bytes that are parsed and written afterwards.

    Returns:
        Who vouches for it; None on a host where no key is configured, which accepts all.

    Raises:
        NotTrusted: it is unsigned, wrongly signed or altered.
    """
    keys = host_keys()
    return verify(text, signature, keys, where) if keys else None


def _open(data: bytes, remote: Remote, where: str) -> tuple[ImageManifest, frozenset[str]]:
    """A manifest, any of them: bundle.json is in each; and the names of all targets that are there."""
    if oci.media_type(data, where) == oci.MANIFEST:
        manifest = oci.parse(ImageManifest, data, where)
        entries = [manifest.annotations]
    else:
        index = oci.parse(Index, data, where)
        described = [each for each in index.manifests if _is_target(each)]
        if not described:  # its own artifact type may be gone: skopeo writes indexes anew
            raise oci.not_ours(where, "an image index that names no target")
        entries = [each.annotations for each in described]
        first = described[0]
        document = read_small(remote.manifest(first), first, where, most=oci.MAX_BYTES)
        manifest = oci.parse(ImageManifest, document, where)
    if manifest.artifactType != oci.BUNDLE:
        raise oci.not_ours(where, f"a manifest of artifact type {manifest.artifactType!r:.100}")
    return manifest, frozenset(each.get(oci.TARGET_NAME, "") for each in entries)


def _is_target(entry: Descriptor) -> bool:
    return entry.mediaType == oci.MANIFEST and oci.TARGET_NAME in entry.annotations


def _layer(manifest: ImageManifest, media_type: str, where: str) -> Descriptor | None:
    try:
        return manifest.layer(media_type)
    except ValueError as error:
        raise oci.not_ours(where, str(error)) from error
