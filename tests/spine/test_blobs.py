"""Files by content."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdxl_trt.bundle import Blob, BlobStore, Chunk
from sdxl_trt.errors import BundleError, OutputError

AVERAGE = 2**12
CONTENT = np.random.default_rng(0).integers(0, 256, 20 * AVERAGE, np.uint8).tobytes()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    store = BlobStore(tmp_path / "bundle", average=AVERAGE)
    with store.lock():
        pass
    return store


def names(store: BlobStore) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


def test_blobs_are_named_by_their_content(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content" * 1000)
    copied, put = store.put_file(tmp_path / "source"), store.put_bytes(b"content" * 1000)
    assert copied == put
    assert names(store) == {put.sha256}
    assert store.has(put)
    assert store.verify(put, "a blob").read_bytes() == b"content" * 1000
    with store.writer() as writer:
        writer.write(b"content" * 400)
        writer.write(memoryview(b"content" * 600))
    assert writer.blob() == put
    assert oct(store.path(put).stat().st_mode)[-3:] == "644"


def test_a_blob_is_read_again_only_if_it_was_written(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, read = store.put_bytes(b"content" * 1000), list[str]()
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *arguments: read.append("") or digest(*arguments))
    for _ in range(3):
        store.verify(blob, "a blob")
    assert len(read) == 1
    path = store.path(blob)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"Content" * 1000)
    os.utime(path, ns=times)  # the time of the last change of the inode tells
    for _ in range(2):
        with pytest.raises(BundleError, match="damaged or was altered"):
            store.verify(blob, "a blob")
    path.write_bytes(b"content" * 1000)
    store.verify(blob, "a blob")
    assert len(read) == 4


def test_empty_file(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    blob = store.put_file(tmp_path / "empty")
    assert blob.bytes == 0
    store.verify(blob, "a blob")


def test_failed_write_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    def write_half() -> None:
        with store.writer() as writer:
            writer.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "missing")
    assert names(store) == set()


def test_full_disk_is_one_clear_error(store: BlobStore) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught, store.writer():
        raise OSError(28, "No space left on device")
    assert caught.value.got == "No space left on device"
    assert names(store) == set()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"contenT"), "content with SHA-256"),
        (lambda path: path.write_bytes(b"content!"), "8 bytes"),
        (lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))), "symbolic link"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
    ],
    ids=["missing", "altered", "longer", "link", "folder"],
)
def test_damaged_blob_is_refused(store: BlobStore, damage: Callable[[Path], Any], says: str) -> None:
    blob = store.put_bytes(b"content")
    damage(store.path(blob))
    with pytest.raises(BundleError, match="the step engine is damaged") as caught:
        store.verify(blob, "the step engine")
    assert says in caught.value.got


def test_lock_admits_one_writer_and_clears_up(store: BlobStore) -> None:
    (store.folder / ".sdxl-trt-tmp-left").write_bytes(b"half")
    (store.bundle / ".sdxl-trt-tmp-left").write_bytes(b"half")
    with store.lock():
        assert names(store) == set()
        assert not list(store.bundle.glob(".sdxl-trt-tmp-*"))
        with pytest.raises(OutputError, match="another process is writing"), BlobStore(store.bundle).lock():
            pass
    with store.lock():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"), BlobStore(tmp_path / "bundle").lock():
        pass


def test_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "bundle").touch()
    with pytest.raises(OutputError, match="cannot write") as caught, BlobStore(tmp_path / "bundle").lock():
        pass
    assert caught.value.fix == "choose another place"


def test_only_wanted_blobs_are_kept(store: BlobStore) -> None:
    keep, drop = store.put_bytes(b"keep"), store.put_bytes(b"drop it")
    assert store.keep_only([keep]) == drop.bytes
    assert names(store) == {keep.sha256}


def test_blobs_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """An OCI image layout has a folder of the same name."""
    blob = tmp_path / "blobs" / "sha256" / ("0" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_text("a layer")
    with pytest.raises(OutputError, match="is not a bundle"), BlobStore(tmp_path).lock():
        pytest.fail("it was locked")
    assert blob.read_text() == "a layer"


# Chunks


def put_chunks(store: BlobStore, content: bytes = CONTENT) -> Blob:
    with store.chunk_writer() as writer:
        writer.write(content)
    return writer.blob()


@pytest.fixture
def other(tmp_path: Path) -> BlobStore:
    other = BlobStore(tmp_path / "other", average=AVERAGE)
    with other.lock():
        pass
    return other


def test_a_blob_in_chunks(store: BlobStore) -> None:
    blob = put_chunks(store)
    assert len(blob.chunks) > 5
    assert names(store) == {chunk.sha256 for chunk in blob.chunks}
    assert store.has(blob)
    assert not store.whole(blob)
    store.check(blob, "a plan")
    with pytest.raises(BundleError, match="a plan is damaged"):
        store.verify(blob, "a plan")
    assert b"".join(store.read(chunk, "a plan") for chunk in blob.chunks) == CONTENT


def test_a_small_blob_is_one_file(store: BlobStore) -> None:
    assert put_chunks(store, b"small") == store.put_bytes(b"small")
    assert len(names(store)) == 1


def test_chunks_that_are_there_stay(store: BlobStore) -> None:
    blob = put_chunks(store)
    first, second = (store.path(chunk) for chunk in blob.chunks[:2])
    kept = first.stat().st_ino
    second.write_bytes(bytes(blob.chunks[1].bytes))
    assert put_chunks(store) == blob
    assert first.stat().st_ino == kept
    store.check(blob, "a plan")


def test_a_failed_write_leaves_only_what_was_there(store: BlobStore) -> None:
    before = put_chunks(store, CONTENT[: 10 * AVERAGE])
    had = names(store)

    def fail() -> None:
        with store.chunk_writer() as writer:
            writer.write(CONTENT)
            assert names(store) > had
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(store) == had
    store.check(before, "a plan")


def test_missing_and_altered_chunks(store: BlobStore) -> None:
    blob = put_chunks(store)
    gone, altered = blob.chunks[2:4]
    store.path(gone).unlink()
    assert store.missing(blob) == (gone,)
    with pytest.raises(BundleError, match="a plan is damaged") as caught:
        store.check(blob, "a plan")
    assert "No such file" in caught.value.got
    put_chunks(store)
    store.path(altered).write_bytes(bytes(altered.bytes))
    assert store.has(blob)
    with pytest.raises(BundleError, match="a plan is damaged") as caught:
        store.check(blob, "a plan")
    assert "content with SHA-256" in caught.value.got


def test_sound_chunks_in_a_wrong_order_are_not_the_blob(store: BlobStore) -> None:
    blob = put_chunks(store)
    swapped = Blob(sha256=blob.sha256, bytes=blob.bytes, chunks=(*blob.chunks[1::-1], *blob.chunks[2:]))
    for refused in (store.check, store.join):
        with pytest.raises(BundleError, match="a plan is damaged") as caught:
            refused(swapped, "a plan")
        assert "content with SHA-256" in caught.value.got
    assert names(store) == {chunk.sha256 for chunk in blob.chunks}


def test_a_whole_blob_with_named_chunks(store: BlobStore) -> None:
    plain = store.put_bytes(CONTENT)
    named = store.name_chunks(plain)
    assert (named.sha256, named.bytes) == (plain.sha256, plain.bytes)
    assert named == put_chunks(BlobStore(store.bundle, average=AVERAGE))
    store.keep_only([named])
    assert names(store) == {named.sha256}
    assert store.has(named)
    store.check(named, "weights")
    assert store.name_chunks(named) is named
    small = store.put_bytes(b"small")
    assert store.name_chunks(small) is small
    store.path(plain).write_bytes(bytes(plain.bytes))
    with pytest.raises(BundleError, match="damaged"):
        store.name_chunks(plain)


def test_chunks_become_a_whole_blob(store: BlobStore) -> None:
    blob = put_chunks(store)
    assert store.join(blob, "weights").read_bytes() == CONTENT
    assert store.whole(blob)
    assert store.keep_only([blob]) == blob.bytes
    assert names(store) == {blob.sha256}
    assert store.join(blob, "weights") == store.path(blob)


def test_chunks_of_a_blob_that_is_not_all_there_are_kept(store: BlobStore) -> None:
    blob, rest = put_chunks(store), store.put_bytes(b"of nobody")
    store.path(blob.chunks[0]).unlink()
    assert store.keep_only([blob]) == rest.bytes
    assert names(store) == {chunk.sha256 for chunk in blob.chunks[1:]}


@pytest.mark.parametrize("whole", [True, False])
def test_what_another_bundle_has_is_linked(store: BlobStore, other: BlobStore, whole: bool) -> None:
    blob = other.name_chunks(other.put_bytes(CONTENT)) if whole else put_chunks(other)
    assert store.adopt(blob, [BlobStore(other.bundle / "nothing"), other])
    assert names(store) == names(other)
    store.check(blob, "a plan")
    for name in names(store):
        assert (store.folder / name).stat().st_ino == (other.folder / name).stat().st_ino
    assert other.keep_only([]) == 0  # no byte: the other bundle still has them
    store.check(blob, "a plan")


def test_what_is_there_of_a_blob_is_linked(store: BlobStore, other: BlobStore) -> None:
    blob = put_chunks(other)
    missing = blob.chunks[3]
    other.path(missing).unlink()
    assert not store.adopt(blob, [other])
    assert store.missing(blob) == (missing,)
    assert store.adopt(blob.chunks[0], [])
    assert not store.adopt(Chunk(sha256="0" * 64, bytes=4), [other])


@pytest.mark.parametrize("damage", ["altered", "a link", "another's"])
def test_what_is_damaged_or_others_could_change_is_not_linked(store: BlobStore, other: BlobStore, damage: str) -> None:
    blob = other.put_bytes(b"content")
    path = other.path(blob)
    if damage == "altered":
        path.write_bytes(b"contenT")
    elif damage == "a link":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
    else:
        path.chmod(0o666)
    assert store.adopt(blob, [other]) == (damage == "another's")
    if damage == "another's":
        assert store.path(blob).stat().st_ino != path.stat().st_ino
        assert oct(store.path(blob).stat().st_mode)[-3:] == "644"
    assert not list(store.folder.glob(".*"))


def test_another_file_system(store: BlobStore, other: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    blob = other.put_bytes(b"content")
    assert store.adopt(blob, [other])
    assert store.path(blob).stat().st_ino != other.path(blob).stat().st_ino
    store.verify(blob, "a blob")
