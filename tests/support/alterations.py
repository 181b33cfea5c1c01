"""Alterations of a signed bundle, by what an attacker can write: manifest, signature, files; each with its refusal."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from signed_bundles import Keys, Reader, sign_bundle

from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.errors import BundleError
from sdxl_trt.trust import SIGNATURE_NAME

EVIL = b"EVIL"
"""Stands in whatever an attacker made of an engine."""

OTHER_UID = 54321


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an attacker has."""

    bundle: Path
    """Signed; one engine is in chunks."""
    sibling: Path
    """Another bundle that the same key signed."""
    keys: Keys

    @property
    def other(self) -> Scene:
        """The same attacker, looking at the other bundle."""
        return Scene(bundle=self.sibling, sibling=self.bundle, keys=self.keys)

    @property
    def manifest(self) -> Path:
        return self.bundle / MANIFEST_NAME

    @property
    def signature(self) -> Path:
        return self.bundle / SIGNATURE_NAME

    def engine(self, graph: str) -> dict[str, Any]:
        engine: dict[str, Any] = json.loads(self.manifest.read_text())["targets"][0]["engines"][graph]["file"]
        return engine

    def file(self, graph: str) -> Path:
        return self.bundle / "blobs" / "sha256" / self.engine(graph)["sha256"]

    def chunk(self, number: int) -> Path:
        return self.bundle / "blobs" / "sha256" / self.engine("step")["chunks"][number]["sha256"]


Change = Callable[[Scene], Any]
Cases = dict[str, tuple[Change, str]]
"""Alterations by name, each with a part of its refusal."""


def cases(table: Cases) -> list[Any]:
    """For pytest."""
    return [pytest.param(change, reason, id=name) for name, (change, reason) in table.items()]


def refusal(scene: Scene, reader: Reader) -> BundleError:
    """Why a host refuses the bundle, of whose alterations its engine library has seen nothing."""
    with pytest.raises(BundleError) as caught:
        reader.open(scene.bundle)
    assert caught.value.fix
    assert EVIL not in b"".join(reader.trt.read)
    return caught.value


def edit(change: Callable[[dict[str, Any]], Any], *, signed: bool = False) -> Change:
    """Change the parsed manifest; `signed`: by somebody who has the key."""

    def alter(scene: Scene) -> None:
        document = json.loads(scene.manifest.read_text())
        change(document)
        scene.manifest.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        if signed:
            sign_bundle(scene.bundle, scene.keys.private)

    return alter


def text(change: Callable[[bytes], bytes], *, signed: bool = False) -> Change:
    """Change the bytes of the manifest."""

    def alter(scene: Scene) -> None:
        scene.manifest.write_bytes(change(scene.manifest.read_bytes()))
        if signed:
            sign_bundle(scene.bundle, scene.keys.private)

    return alter


def envelope(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Change the parsed signature."""

    def alter(scene: Scene) -> None:
        document = json.loads(scene.signature.read_text())
        change(document)
        scene.signature.write_text(json.dumps(document))

    return alter


def payload(change: Callable[[dict[str, Any], Scene], Any]) -> Change:
    """Change what the signature says."""

    def alter(scene: Scene) -> None:
        document = json.loads(scene.signature.read_text())
        statement = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
        change(statement, scene)
        document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        scene.signature.write_text(json.dumps(document))

    return alter


def engine(graph: str, change: Callable[[Path], Any]) -> Change:
    """Change the file of an engine that is whole."""
    return lambda scene: change(scene.file(graph))


def chunk(number: int, change: Callable[[Path], Any]) -> Change:
    """Change a chunk of the engine that is not."""
    return lambda scene: change(scene.chunk(number))


def overwrite(path: Path, data: bytes) -> None:
    """Other content in the same file."""
    path.write_bytes(data)


def attackers_engine(scene: Scene) -> None:
    """A plan of the attacker's, which is what its own hash says."""
    plan = EVIL * 1000
    digest = hashlib.sha256(plan).hexdigest()
    (scene.bundle / "blobs" / "sha256" / digest).write_bytes(plan)

    def name(document: dict[str, Any]) -> None:
        document["targets"][0]["engines"]["vae_decoder"]["file"] = {"sha256": digest, "bytes": len(plan)}

    edit(name)(scene)


def flip(path: Path, at: int = -100) -> None:
    """Four bytes of a file, of the same length."""
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at : at + 4] = EVIL
    path.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    """The content of two files."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def as_link(path: Path) -> None:
    """A symbolic link to the very same file or folder, which lies outside the bundle now."""
    outside = next(parent for parent in path.parents if parent.name == "bundle").parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def others_hard_link(path: Path) -> None:
    """A second name of a file that is somebody else's (for root)."""
    theirs = path.parents[2] / "theirs"
    theirs.write_bytes(path.read_bytes())
    os.chown(theirs, OTHER_UID, OTHER_UID)
    path.unlink()
    os.link(theirs, path)


def replaced(pattern: bytes, by: bytes) -> Callable[[bytes], bytes]:
    """One occurrence of a pattern in the manifest's text, which must be there."""

    def change(data: bytes) -> bytes:
        result, count = re.subn(pattern, by, data, count=1)
        assert count, pattern
        return result

    return change
