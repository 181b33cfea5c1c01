"""bundle.json: its schema, and reading it as something that may be hostile."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sdxl_trt.bundle.content import SHA256, Blob
from sdxl_trt.bundle.refiner import conflict
from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import BundleError
from sdxl_trt.files import no_links, why_unreadable, write_json
from sdxl_trt.spec import SPEC_VERSION, ModelSpec, Profile, TensorSpec, Work
from sdxl_trt.trust import SIGNATURE_NAME, admit

MANIFEST_NAME = "bundle.json"
SCHEMA_VERSION = 4
READABLE_SCHEMAS = (1, 2, 3, SCHEMA_VERSION)
"""Schema 3 is schema 4 without chunks, 2 is 3 without the engines' work, 1 is 2 without refiners."""
MAX_MANIFEST_BYTES = 16 * 2**20

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """One compiled graph."""

    key: str
    """SHA-256 over everything that can change the engine (see sdxl_trt.engines.keys)."""
    file: Blob
    """The plan, or for onnxruntime the graph."""
    weights: tuple[Blob, ...] = ()
    """Files the graph reads its weights from, by their hash (onnxruntime alone; plans hold their weights)."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    work: Work | None = None
    """What a run takes; not known of engines that were built before schema 3."""
    streams: bool = False
    """Built so that its weights may be streamed; not in manifests that were written before there was such."""

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.key):
            raise ValueError(f"key {self.key[:80]!r} is not a SHA-256")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A complete set of engines for one kind of host."""

    name: str
    flavour: str
    """tensorrt, tensorrt-rtx, onnxruntime (on the processor) or onnxruntime-cuda."""
    flavour_version: str
    sms: tuple[int, ...]
    """Compute capabilities (86 for 8.6) the engines were compiled for; empty: none named ('portable', or a CPU)."""
    processor: str
    """The host's instruction set as the kernel names it (x86_64, aarch64)."""
    precision: str
    """float16 or float32: dtype of the UNet's and text encoders' tensors."""
    profile: Profile
    accepted: bool
    """Ran and agreed with the reference on the hardware it is for; else it does so at its first start there."""
    engines: dict[str, EngineEntry]
    """By graph name."""
    refiner: dict[str, EngineEntry] = field(default_factory=dict)
    """The refiner's, by graph name: its own, and those that it shares with the model; empty: no refiner here."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name[:80]!r} is not a target's name")

    def all_engines(self) -> tuple[tuple[str, EngineEntry], ...]:
        """What they are, in words, and the engines; one that two models share twice."""
        refiner = {f"refiner's {name}": entry for name, entry in self.refiner.items()}
        return (*self.engines.items(), *refiner.items())

    def blobs(self) -> tuple[Blob, ...]:
        """Its engines' files; one that two engines share twice."""
        return tuple(blob for _, engine in self.all_engines() for blob in (engine.file, *engine.weights))


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """A second model, which goes on where the first one's steps end. Its engines are in the targets."""

    model: ModelSpec
    files: dict[str, Blob]
    """As the manifest's."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of bundle.json."""

    schema: int = SCHEMA_VERSION
    spec: int = SPEC_VERSION
    tool: str
    """Version of sdxl-trt that wrote it."""
    created: str
    """UTC, ISO 8601."""
    model: ModelSpec
    files: dict[str, Blob]
    """tokenizer.json per text encoder ('<encoder>/tokenizer.json'), its token embedding table
    ('<encoder>/token_embedding.npy'), and the model's licence texts ('licence/<name>')."""
    targets: tuple[Target, ...]
    refiner: Refiner | None = None

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError("two targets have the same name")
        if self.refiner is None and any(target.refiner for target in self.targets):
            raise ValueError("engines of a refiner that is not there")
        if self.refiner and (error := conflict(self.model, self.refiner.model)):
            raise ValueError(error.what)
        _check_alike(self._named(self.targets))

    def blobs(self, *targets: Target) -> dict[str, Blob]:
        """Every file that is named, by hash; given targets, every file that a host needs for these."""
        return {blob.sha256: blob for blob in self._named(targets or self.targets)}

    def shared(self) -> tuple[Blob, ...]:
        """The files that a host needs whatever its target."""
        return (*self.files.values(), *(self.refiner.files.values() if self.refiner else ()))

    def _named(self, targets: Iterable[Target]) -> Iterator[Blob]:
        return itertools.chain(self.shared(), *(target.blobs() for target in targets))


def _check_alike(blobs: Iterable[Blob]) -> None:
    """One content has one size, and is cut in one way, wherever it is named."""
    known = dict[str, Blob]()
    for blob in blobs:
        if known.setdefault(blob.sha256, blob) != blob:
            raise ValueError(f"two files with SHA-256 {blob.sha256}")
    sizes = {sha256: blob.bytes for sha256, blob in known.items()}
    for chunk in (chunk for blob in known.values() for chunk in blob.chunks):
        if sizes.setdefault(chunk.sha256, chunk.bytes) != chunk.bytes:
            raise ValueError(f"two sizes with SHA-256 {chunk.sha256}")


def read_manifest(bundle: Path, *, signed: bool = True) -> Manifest:
    """Read and check bundle.json (not yet the files it names).

    Args:
        bundle: the folder.
        signed: where keys are configured on this host, one of them must vouch for it (see `sdxl_trt.trust`). Who
            builds or signs a bundle reads it before it is signed.

    Raises:
        BundleError: there is none, it is not what its schema says, or it is of a schema or spec not known here.
        NotTrusted: this host has keys, and none of them vouches for it, or others could alter it.
        KeyFileError: this host has keys that cannot be used.
        FlavourUnavailable: this host has keys, and the library that checks signatures is not installed.
    """
    text = manifest_text(bundle)
    if signed:
        admit(bundle, text, MANIFEST_NAME)
    return parse_manifest(text, bundle / MANIFEST_NAME)


def manifest_text(bundle: Path) -> bytes:
    """The bytes of bundle.json, at most one more than may be.

    Raises:
        BundleError: there is none, or no file.
    """
    try:
        with open(bundle / MANIFEST_NAME, "rb", opener=no_links) as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(
            f"{bundle} is not a bundle",
            got=f"{MANIFEST_NAME}: {why_unreadable(error)}",
            expected=f"a folder with a readable {MANIFEST_NAME}",
            fix="sdxl-trt build MODEL --gpu NAME -o BUNDLE",
        ) from error


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest that `text` is; `path` is named in messages.

    Raises:
        BundleError: it is not what its schema says, or it is of a schema or spec not known here.
    """
    try:
        value = loads(text, max_bytes=MAX_MANIFEST_BYTES)
        _check_versions(value, path)
        return decode(Manifest, value)
    except DecodeError as error:
        raise BundleError(
            f"{path} is damaged or was altered",
            got=str(error),
            expected=f"a manifest of schema {SCHEMA_VERSION}",
            fix="fetch or build the bundle again",
        ) from error


def _check_versions(value: object, path: Path) -> None:
    """Say 'another version' rather than list the fields by which it differs."""
    if not isinstance(value, dict):
        return
    for name, known in (("schema", READABLE_SCHEMAS), ("spec", (SPEC_VERSION,))):
        if value.get(name) not in known:
            raise BundleError(
                f"{path} is of an unknown {name} version",
                got=json.dumps(value.get(name)),
                expected=" or ".join(map(str, known)),
                fix="use the sdxl-trt version that wrote it"
                + (f" ({value['tool']})" if isinstance(value.get("tool"), str) else "")
                + ", or build it again with this one",
            )


def write_manifest(bundle: Path, manifest: Manifest) -> None:
    """Write bundle.json atomically. Every blob it names must be in place already. A signature of the old one goes."""
    (bundle / SIGNATURE_NAME).unlink(missing_ok=True)
    write_json(bundle / MANIFEST_NAME, dataclasses.asdict(manifest))
