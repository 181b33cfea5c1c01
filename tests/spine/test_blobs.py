"""Files by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdxl_trt.bundle import BlobStore
from sdxl_trt.errors import BundleError, OutputError


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    store = BlobStore(tmp_path / "bundle")
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


# The choice of a target


def test_blobs_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    """An OCI image layout has a folder of the same name."""
    blob = tmp_path / "blobs" / "sha256" / ("0" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_text("a layer")
    with pytest.raises(OutputError, match="is not a bundle"), BlobStore(tmp_path).lock():
        pytest.fail("it was locked")
    assert blob.read_text() == "a layer"
