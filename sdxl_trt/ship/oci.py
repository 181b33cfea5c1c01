"""The documents of the OCI image specification 1.1 that a bundle is shipped as, read as something hostile.

One image index names a manifest for each target. A manifest's config is the target as bundle.json has it; its layers
are bundle.json, its signature if there is one, and every piece of the target's files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import TransferError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

BUNDLE = "application/vnd.sdxl-trt.bundle.v1+json"
"""The artifact type of the index and of each manifest."""
TARGET = "application/vnd.sdxl-trt.target.v1+json"
BUNDLE_JSON = "application/vnd.sdxl-trt.manifest.v1+json"
SIGNATURE = "application/vnd.sdxl-trt.signature.v1+json"

# ModelPack's: https://github.com/modelpack/model-spec
WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
WEIGHTS_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOCUMENT = "application/vnd.cncf.model.doc.v1.raw"

TITLE = "org.opencontainers.image.title"
"""The path in the bundle's folder; `oras pull` writes layers under it."""
TARGET_NAME = "vnd.sdxl-trt.target"
REF_NAME = "org.opencontainers.image.ref.name"

MAX_BYTES = 4 * 2**20
"""Of an index or a manifest: what registries take."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """Content by its hash; field names are the specification's."""

    mediaType: str  # noqa: N815
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    artifactType: str = ""  # noqa: N815
    platform: dict[str, Any] = field(default_factory=dict)
    """Of images that are none of ours."""

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"{self.digest[:80]!r} is not 'sha256:' and 64 lower-case hexadecimal digits")
        if not 0 <= self.size < 2**50:
            raise ValueError(f"{self.size} is no size")

    @property
    def sha256(self) -> str:
        """The digest's 64 hexadecimal digits."""
        return self.digest.partition(":")[2]

    @staticmethod
    def of(data: bytes, media_type: str, **more: Any) -> Descriptor:
        """The descriptor of these bytes."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return Descriptor(mediaType=media_type, digest=digest, size=len(data), **more)


@dataclass(frozen=True, kw_only=True)
class Index:
    """An image index; also index.json of an image layout."""

    schemaVersion: int = 2  # noqa: N815
    mediaType: str = INDEX  # noqa: N815
    artifactType: str = ""  # noqa: N815
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageManifest:
    """What belongs to one target."""

    schemaVersion: int = 2  # noqa: N815
    mediaType: str = MANIFEST  # noqa: N815
    artifactType: str = ""  # noqa: N815
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)

    def layer(self, media_type: str) -> Descriptor | None:
        """The layer of a media type that stands once; None where there is none.

        Raises:
            ValueError: there are several.
        """
        found = [layer for layer in self.layers if layer.mediaType == media_type]
        if len(found) > 1:
            raise ValueError(f"{len(found)} layers of media type {media_type}")
        return found[0] if found else None


def dump(document: Index | ImageManifest) -> bytes:
    """A document's bytes, always the same ones for the same content: its name is their hash."""
    return json.dumps(_plain(document), sort_keys=True, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """As JSON has it, without the fields that are empty."""
    if dataclasses.is_dataclass(value):
        named = {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {name: item for name, item in named.items() if item not in ("", {})}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def parse(kind: type[T], data: bytes, where: str) -> T:
    """Read an `Index` or an `ImageManifest` that may be hostile.

    Args:
        kind: which of the two.
        data: its bytes.
        where: it came from, in words.

    Raises:
        TransferError: it is none.
    """
    try:
        document = decode(kind, loads(data, max_bytes=MAX_BYTES))
        if (version := getattr(document, "schemaVersion", 2)) != 2:
            raise DecodeError(f"$.schemaVersion: {version} is not 2")
    except DecodeError as error:
        raise not_ours(where, str(error)) from error
    return document


def media_type(data: bytes, where: str) -> str:
    """What a document says that it is: an index or a manifest.

    Raises:
        TransferError: neither.
    """
    try:
        value = loads(data, max_bytes=MAX_BYTES)
    except DecodeError as error:
        raise not_ours(where, str(error)) from error
    found = value.get("mediaType") if isinstance(value, dict) else None
    if found not in (INDEX, MANIFEST):
        raise not_ours(where, f"media type {found!r:.100}")
    return str(found)


def not_ours(where: str, got: str) -> TransferError:
    """The error for a place that holds something else."""
    return TransferError(
        f"{where} holds no bundle",
        got=got,
        expected="an image index or manifest that `sdxl-trt ship push` wrote",
        fix="check the reference",
    )
