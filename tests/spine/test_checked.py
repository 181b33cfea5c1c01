"""A blob that is read piece by piece: what comes out is what its hash says, whatever happens to the file."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdxl_trt.bundle import Blob, BlobStore
from sdxl_trt.bundle.checked import CHUNK, CheckedBlob
from sdxl_trt.errors import BundleError

CONTENT = np.random.default_rng(0).integers(0, 256, 2 * CHUNK + 1234, np.uint8).tobytes()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path, average=2**20)


def put(store: BlobStore, content: bytes = CONTENT) -> Blob:
    with store.lock():
        return store.put_bytes(content)


def put_chunks(store: BlobStore) -> Blob:
    with store.lock(), store.chunk_writer() as writer:
        writer.write(CONTENT)
    return writer.blob()


def put_named(store: BlobStore) -> Blob:
    return store.name_chunks(put(store))


WAYS = pytest.mark.parametrize("way", [put, put_chunks, put_named])


@WAYS
@pytest.mark.parametrize("size", [1000_003, CHUNK, 10 * CHUNK])
def test_all_of_it_in_order(store: BlobStore, size: int, way: Callable[[BlobStore], Blob]) -> None:
    with CheckedBlob(store, way(store), "the plan") as blob:
        parts = list(iter(lambda: blob.read(size), b""))
    assert b"".join(parts) == CONTENT
    assert max(map(len, parts)) <= CHUNK


@WAYS
def test_any_place_in_any_order(store: BlobStore, way: Callable[[BlobStore], Blob]) -> None:
    with CheckedBlob(store, way(store), "the plan") as blob:
        for position in (2 * CHUNK + 1000, 0, CHUNK - 1, len(CONTENT) - 1, 5):
            blob.position = position
            data = blob.read(100)
            assert data
            assert data == CONTENT[position : position + len(data)]
            assert blob.position == position + len(data)
        for outside in (len(CONTENT), len(CONTENT) + 1, -1):
            blob.position = outside
            assert blob.read(100) == b""


@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "gone", "link", "folder"])
def test_what_is_not_its_hash_is_refused(store: BlobStore, tmp_path: Path, damage: str) -> None:
    blob = put(store)
    path = store.path(blob)
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(CONTENT)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        path.mkdir()
    elif damage != "gone":
        flipped = CONTENT[:CHUNK] + bytes([CONTENT[CHUNK] ^ 1]) + CONTENT[CHUNK + 1 :]
        path.write_bytes({"flipped": flipped, "shorter": CONTENT[:-1], "longer": CONTENT + b"x"}[damage])
    with pytest.raises(BundleError, match="the plan is damaged or was altered") as caught:
        CheckedBlob(store, blob, "the plan")
    assert caught.value.got
    assert caught.value.expected


def test_a_change_after_the_check_is_not_handed_out(store: BlobStore) -> None:
    blob = put(store)
    with CheckedBlob(store, blob, "the plan") as checked:
        checked.read(10)
        with store.path(blob).open("r+b") as file:
            os.pwrite(file.fileno(), b"evil", CHUNK + 5)
        checked.position = 2 * CHUNK
        assert checked.read(10) == CONTENT[2 * CHUNK : 2 * CHUNK + 10]
        checked.position = CHUNK
        with pytest.raises(BundleError, match="damaged or was altered") as caught:
            checked.read(10)
        assert caught.value.got == "content that changed after it was checked"


@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "link", "folder"])
def test_a_chunk_that_is_not_its_hash_is_not_handed_out(store: BlobStore, tmp_path: Path, damage: str) -> None:
    blob = put_chunks(store)
    chunk = blob.chunks[1]
    path, content = store.path(chunk), store.read(chunk, "a chunk")
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        path.mkdir()
    else:
        flipped = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes({"flipped": flipped, "shorter": content[:-1], "longer": content + b"x"}[damage])
    first = blob.chunks[0].bytes

    def read_on() -> None:
        with CheckedBlob(store, blob, "the plan") as checked:
            assert damage == "flipped"  # the others are found before anything is read
            assert checked.read(first) == CONTENT[:first]
            checked.read(1)

    with pytest.raises(BundleError, match="the plan is damaged or was altered"):
        read_on()


def test_a_whole_blob_is_checked_by_its_chunks(store: BlobStore) -> None:
    blob = put_named(store)
    with store.path(blob).open("r+b") as file:
        os.pwrite(file.fileno(), b"evil", 2 * CHUNK)
    with CheckedBlob(store, blob, "the plan") as checked:
        assert checked.read(10) == CONTENT[:10]
        checked.position = 2 * CHUNK
        with pytest.raises(BundleError, match="damaged or was altered") as caught:
            checked.read(10)
    assert caught.value.got == "content that is not what its hash says"


def test_chunks_that_are_not_there(store: BlobStore) -> None:
    blob = put_chunks(store)
    for chunk in blob.chunks[1:3]:
        store.path(chunk).unlink()
    with pytest.raises(BundleError, match="the plan is damaged") as caught:
        CheckedBlob(store, blob, "the plan")
    assert caught.value.got == f"2 of its {len(blob.chunks)} chunks are not there"


def test_a_chunk_is_read_once(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, read = put_chunks(store), list[str]()
    plain = BlobStore.read
    monkeypatch.setattr(
        BlobStore, "read", lambda self, chunk, what: read.append(chunk.sha256) or plain(self, chunk, what)
    )
    with CheckedBlob(store, blob, "the plan") as checked:
        while checked.read(100_000):
            pass
    assert read == [chunk.sha256 for chunk in blob.chunks]


def test_it_is_never_whole_in_memory(store: BlobStore) -> None:
    content = CONTENT * 4
    blob = put(store, content)
    tracemalloc.start()
    try:
        with CheckedBlob(store, blob, "the plan") as checked:
            while checked.read(2**40):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"peak for {len(content)} bytes: measured {peak}, required < {3 * CHUNK}")
    assert peak < 3 * CHUNK
