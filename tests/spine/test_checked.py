"""A blob that is read piece by piece: what comes out is what its hash says, whatever happens to the file."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sdxl_trt.bundle import Blob, BlobStore
from sdxl_trt.bundle.checked import CHUNK, CheckedBlob
from sdxl_trt.errors import BundleError

CONTENT = np.random.default_rng(0).integers(0, 256, 2 * CHUNK + 1234, np.uint8).tobytes()


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def put(store: BlobStore, content: bytes = CONTENT) -> Blob:
    with store.lock():
        return store.put_bytes(content)


@pytest.mark.parametrize("size", [1000_003, CHUNK, 10 * CHUNK])
def test_all_of_it_in_order(store: BlobStore, size: int) -> None:
    with CheckedBlob(store, put(store), "the plan") as blob:
        parts = list(iter(lambda: blob.read(size), b""))
    assert b"".join(parts) == CONTENT
    assert max(map(len, parts)) <= CHUNK


def test_any_place_in_any_order(store: BlobStore) -> None:
    with CheckedBlob(store, put(store), "the plan") as blob:
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
