"""A bundle as the documents and blobs that it is shipped as. The same bundle always gives the same ones."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.bundle import MANIFEST_NAME, Blob, BlobStore, Chunk, Manifest, Target, manifest_text, parse_manifest
from sdxl_trt.bundle.reading import damaged
from sdxl_trt.errors import BundleError, TransferError
from sdxl_trt.ship import oci
from sdxl_trt.ship.oci import Descriptor, ImageManifest, Index
from sdxl_trt.ship.remote import Source
from sdxl_trt.ship.verified import file_blocks, verified
from sdxl_trt.trust import SIGNATURE_NAME
from sdxl_trt.trust.admission import read_signature

Document = tuple[Descriptor, bytes]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """All that is to be sent of a bundle."""

    index: Document
    manifests: tuple[Document, ...]
    """One for each target that is here."""
    blobs: dict[str, tuple[Descriptor, Source]]
    """By digest: what the manifests name."""
    targets: tuple[str, ...]
    absent: tuple[str, ...]
    """Targets of bundle.json whose files are not here: the bundle was pulled for another one."""


def files_of(manifest: Manifest, target: Target) -> Iterator[tuple[Blob, str]]:
    """Every file that a host needs for a target, and its media type."""
    files = [*manifest.files.items(), *(manifest.refiner.files.items() if manifest.refiner else ())]
    for name, blob in files:
        if name.startswith("licence/"):
            yield blob, oci.DOCUMENT
        else:
            yield blob, oci.WEIGHTS_CONFIG if name.endswith(".json") else oci.WEIGHTS
    for blob in target.blobs():
        yield blob, oci.WEIGHTS


def pack(bundle: Path) -> Packed:
    """Read a bundle, and make what is to be sent.

    Raises:
        BundleError: it is no bundle, or none of its targets is whole.
        TransferError: it has more chunks than a manifest can name.
    """
    return _Packing(bundle).packed()


class _Packing:
    def __init__(self, bundle: Path) -> None:
        self._bundle, self._store = bundle, BlobStore(bundle)
        text, signature = manifest_text(bundle), read_signature(bundle)
        self._manifest = parse_manifest(text, bundle / MANIFEST_NAME)
        self._blobs: dict[str, tuple[Descriptor, Source]] = {}
        self._common = [self._small(text, oci.BUNDLE_JSON, {oci.TITLE: MANIFEST_NAME})]
        if signature is not None:
            self._common.append(self._small(signature, oci.SIGNATURE, {oci.TITLE: SIGNATURE_NAME}))

    def _small(self, data: bytes, media_type: str, annotations: dict[str, str]) -> Descriptor:
        descriptor = Descriptor.of(data, media_type, annotations=annotations)
        self._blobs[descriptor.digest] = descriptor, lambda: iter([data])
        return descriptor

    def packed(self) -> Packed:
        here = {target.name for target in self._manifest.targets if self._is_here(target)}
        if not here:
            raise BundleError(
                f"no target of {self._bundle} is whole",
                got=", ".join(f"{target.name}: files are missing" for target in self._manifest.targets) or "none",
                expected="at least one target with all its files",
                fix="build or pull the bundle again",
            )
        targets = [target for target in self._manifest.targets if target.name in here]
        manifests = tuple(self._pack_target(target) for target in targets)
        created = {"org.opencontainers.image.created": self._manifest.created}
        index = Index(
            artifactType=oci.BUNDLE,
            manifests=tuple(descriptor for descriptor, _ in manifests),
            annotations=created | {"vnd.sdxl-trt.model": self._manifest.model.name},
        )
        return Packed(
            index=_document(oci.dump(index), oci.INDEX, {}),
            manifests=manifests,
            blobs=self._blobs,
            targets=tuple(target.name for target in targets),
            absent=tuple(target.name for target in self._manifest.targets if target.name not in here),
        )

    def _is_here(self, target: Target) -> bool:
        return all(map(self._store.has, self._manifest.blobs(target).values()))

    def _pack_target(self, target: Target) -> Document:
        about = _annotations(target)
        layers = {layer.digest: layer for layer in self._common}
        for blob, media_type in files_of(self._manifest, target):
            for layer in self._pieces(blob, media_type):
                layers.setdefault(layer.digest, layer)
        config = json.dumps(dataclasses.asdict(target), sort_keys=True, separators=(",", ":")).encode()
        manifest = ImageManifest(
            artifactType=oci.BUNDLE,
            config=self._small(config, oci.TARGET, {}),
            layers=tuple(layers.values()),
            annotations=about,
        )
        return _document(oci.dump(manifest), oci.MANIFEST, about)

    def _pieces(self, blob: Blob, media_type: str) -> Iterator[Descriptor]:
        """A layer for each chunk; for the blob where it has none."""
        offset = 0
        for part in blob.parts:
            descriptor = piece(part, media_type)
            self._blobs.setdefault(descriptor.digest, (descriptor, self._source(blob, part, descriptor, offset)))
            yield descriptor
            offset += part.bytes

    def _source(self, blob: Blob, part: Chunk, descriptor: Descriptor, offset: int) -> Source:
        if self._store.whole(blob):
            return functools.partial(_sound, self._store.path(blob), offset, descriptor)
        return functools.partial(_sound, self._store.path(part), 0, descriptor)


def piece(part: Chunk, media_type: str) -> Descriptor:
    """The layer of a blob or chunk."""
    title = {oci.TITLE: f"blobs/sha256/{part.sha256}"}
    return Descriptor(mediaType=media_type, digest=f"sha256:{part.sha256}", size=part.bytes, annotations=title)


def _sound(path: Path, offset: int, descriptor: Descriptor) -> Iterator[bytes]:
    """A piece of the bundle; nothing of it is believed to be sent before its hash was right.

    Raises:
        BundleError: it is not what bundle.json says.
    """
    try:
        yield from verified(file_blocks(path, offset, descriptor.size), descriptor, "the bundle")
    except (TransferError, OSError) as error:
        got = error.got if isinstance(error, TransferError) else error.strerror or str(error)
        raise damaged("a file of the bundle", path, got, f"SHA-256 {descriptor.sha256}") from error


def _document(data: bytes, media_type: str, annotations: dict[str, str]) -> Document:
    if len(data) > oci.MAX_BYTES:
        raise TransferError(
            "the bundle is too large to be shipped",
            got=f"a manifest of {len(data)} bytes, with its chunks' names",
            expected=f"at most {oci.MAX_BYTES}, as registries take them",
            fix="build targets into several bundles",
        )
    return Descriptor.of(data, media_type, annotations=annotations, artifactType=oci.BUNDLE), data


def _annotations(target: Target) -> dict[str, str]:
    return {
        oci.TARGET_NAME: target.name,
        "vnd.sdxl-trt.flavour": target.flavour,
        "vnd.sdxl-trt.flavour-version": target.flavour_version,
        "vnd.sdxl-trt.sm": ",".join(map(str, target.sms)) or "portable",
        "vnd.sdxl-trt.processor": target.processor,
        "vnd.sdxl-trt.precision": target.precision,
    }
