"""Files of a signed bundle, altered, exchanged, linked or open to others: refused each time, for its own reason."""

from __future__ import annotations

import os

import pytest
from alterations import (
    EVIL,
    OTHER_UID,
    Cases,
    Change,
    Scene,
    as_folder,
    as_link,
    as_pipe,
    cases,
    chunk,
    engine,
    flip,
    others_hard_link,
    overwrite,
    refusal,
    swap,
)
from signed_bundles import Reader

from sdxl_trt.bundle import MANIFEST_NAME
from sdxl_trt.trust import SIGNATURE_NAME


def mode(name: str, bits: int) -> Change:
    return lambda scene: os.chmod(scene.bundle / name, bits)  # noqa: PTH101


def whole_beside_chunks(scene: Scene) -> None:
    """A file of the engine's name and size: what is whole is taken before chunks are."""
    stated = scene.engine("step")
    overwrite(scene.bundle / "blobs" / "sha256" / stated["sha256"], (EVIL * stated["bytes"])[: stated["bytes"]])


OTHERS = "may be written by others"
FILES: Cases = {
    "manifest a link": (lambda scene: as_link(scene.manifest), "a symbolic link"),
    "manifest a pipe": (lambda scene: as_pipe(scene.manifest), "no regular file"),
    "manifest gone": (lambda scene: scene.manifest.unlink(), "No such file"),
    "blobs a link": (lambda scene: as_link(scene.bundle / "blobs"), "blobs is a symbolic link"),
    "sha256 a link": (lambda scene: as_link(scene.bundle / "blobs" / "sha256"), "sha256 is a symbolic link"),
    "engine a link": (engine("vae_decoder", as_link), "is a symbolic link"),
    "engine a pipe": (engine("vae_decoder", as_pipe), "neither file nor folder"),
    "engine a folder": (engine("vae_decoder", as_folder), "is a folder"),
    "chunk a link": (chunk(3, as_link), "is a symbolic link"),
    "folder anybody's": (mode(".", 0o777), OTHERS),
    "folder anybody's, sticky": (mode(".", 0o1777), OTHERS),
    "folder the group's": (mode(".", 0o775), OTHERS),
    "manifest anybody's": (mode(MANIFEST_NAME, 0o666), f"{MANIFEST_NAME} {OTHERS}"),
    "manifest the group's": (mode(MANIFEST_NAME, 0o664), f"{MANIFEST_NAME} {OTHERS}"),
    "signature anybody's": (mode(SIGNATURE_NAME, 0o646), f"{SIGNATURE_NAME} {OTHERS}"),
    "blobs anybody's": (mode("blobs", 0o777), f"blobs {OTHERS}"),
    "sha256 anybody's": (mode("blobs/sha256", 0o757), f"sha256 {OTHERS}"),
    "engine anybody's": (engine("vae_decoder", lambda p: p.chmod(0o666)), OTHERS),
    "chunk the group's": (chunk(0, lambda path: path.chmod(0o660)), OTHERS),
}
ENGINES: Cases = {
    "one byte": (engine("vae_decoder", flip), "content with SHA-256"),
    "the first bytes": (engine("vae_decoder", lambda path: flip(path, 0)), "content with SHA-256"),
    "one that is opened late": (engine("vae_encoder", flip), "content with SHA-256"),
    "longer": (engine("vae_decoder", lambda path: overwrite(path, path.read_bytes() + EVIL)), "bytes"),
    "shorter": (engine("vae_decoder", lambda path: overwrite(path, path.read_bytes()[:-1])), "bytes"),
    "empty": (engine("vae_decoder", lambda path: overwrite(path, b"")), "0 bytes"),
    "gone": (engine("vae_decoder", lambda path: path.unlink()), "No such file"),
    "two swapped": (lambda scene: swap(scene.file("vae_decoder"), scene.file("vae_encoder")), "content with SHA-256"),
    "of another signed bundle": (
        lambda scene: overwrite(scene.file("vae_decoder"), scene.other.file("vae_decoder").read_bytes()),
        "content with SHA-256",
    ),
    "a chunk's byte": (chunk(0, flip), "content with SHA-256"),
    "the last chunk's": (chunk(-1, lambda path: flip(path, -4)), "content with SHA-256"),
    "chunks swapped": (lambda scene: swap(scene.chunk(1), scene.chunk(2)), "2 of its 12 chunks are not there"),
    "a chunk longer": (chunk(5, lambda path: overwrite(path, path.read_bytes() + EVIL)), "chunks are not there"),
    "a chunk gone": (chunk(2, lambda path: path.unlink()), "1 of its"),
    "a whole file beside chunks": (whole_beside_chunks, "content that is not what its hash says"),
}


@pytest.mark.parametrize(("change", "reason"), cases(FILES))
def test_files_and_folders(scene: Scene, reader: Reader, change: Change, reason: str) -> None:
    change(scene)
    error = refusal(scene, reader)
    assert reason in error.got
    assert reader.deserialised == 0


@pytest.mark.parametrize(("change", "reason"), cases(ENGINES))
def test_engines(scene: Scene, reader: Reader, change: Change, reason: str) -> None:
    """The signature holds, so sound engines may be opened before the altered one is met; of that one, no byte is."""
    change(scene)
    error = refusal(scene, reader)
    assert reason in error.got
    assert "damaged or was altered" in error.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", [".", MANIFEST_NAME, SIGNATURE_NAME, "blobs", "blobs/sha256"])
def test_what_belongs_to_others(scene: Scene, reader: Reader, name: str) -> None:
    os.chown(scene.bundle / name, OTHER_UID, OTHER_UID)
    assert f"belongs to another user (uid {OTHER_UID})" in refusal(scene, reader).got
    assert reader.deserialised == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_hard_links_to_files_of_others(scene: Scene, reader: Reader) -> None:
    others_hard_link(scene.file("vae_decoder"))
    assert f"belongs to another user (uid {OTHER_UID})" in refusal(scene, reader).got
    assert reader.deserialised == 0
