"""Cutting by content: what the pieces are, and that a change moves few of them."""

from __future__ import annotations

import hashlib
import sys
import tracemalloc

import numpy as np
import pytest

from sdxl_trt.bundle import Blob
from sdxl_trt.bundle.chunking import AVERAGE, SPREAD, Chunker
from sdxl_trt.errors import FlavourUnavailable

SMALL = 2**12
CONTENT = np.random.default_rng(0).integers(0, 256, 100 * SMALL, np.uint8).tobytes()


def cut(content: bytes, write: int = 2**24, average: int = SMALL) -> tuple[Blob, list[bytes]]:
    """The name of a content, and its chunks' bytes."""
    parts = list[bytes]()
    chunker = Chunker(lambda chunk, data: parts.append(bytes(data)), average=average)
    for start in range(0, len(content), write):
        chunker.write(content[start : start + write])
    return chunker.blob(), parts


def test_chunks_are_the_content() -> None:
    blob, parts = cut(CONTENT)
    assert b"".join(parts) == CONTENT
    assert (blob.sha256, blob.bytes) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert [chunk.sha256 for chunk in blob.chunks] == [hashlib.sha256(part).hexdigest() for part in parts]
    assert [chunk.bytes for chunk in blob.chunks] == [len(part) for part in parts]
    sizes = sorted(map(len, parts[:-1]))
    assert sizes[0] >= SMALL // SPREAD
    assert sizes[-1] <= SMALL * SPREAD
    print(f"average: measured {len(CONTENT) / len(parts)}, required {SMALL / 2} to {SMALL * 2}")
    assert SMALL / 2 < len(CONTENT) / len(parts) < SMALL * 2


@pytest.mark.parametrize("write", [1000, SMALL, 16 * SMALL, 37 * SMALL + 1])
def test_writes_do_not_matter(write: int) -> None:
    assert cut(CONTENT, write) == cut(CONTENT)


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_what_is_not_larger_is_not_cut(size: int) -> None:
    blob, parts = cut(CONTENT[:size])
    assert blob.chunks == ()
    assert parts == [CONTENT[:size]]
    assert blob.parts == (blob,)


def test_what_is_all_alike_is_cut_at_the_largest_size() -> None:
    blob, _ = cut(bytes(10 * SMALL))
    assert [chunk.bytes for chunk in blob.chunks] == [4 * SMALL, 4 * SMALL, 2 * SMALL]
    assert len(set(blob.chunks)) == 2


@pytest.mark.parametrize("change", ["put in", "taken out", "altered"])
def test_a_change_costs_a_few_chunks(change: str) -> None:
    middle = len(CONTENT) // 2
    inserted = {"put in": b"seven b", "taken out": b"", "altered": b"Z"}[change]
    rest = CONTENT[middle:] if change == "put in" else CONTENT[middle + 1 :]
    known = set(cut(CONTENT)[0].chunks)
    changed, _ = cut(CONTENT[:middle] + inserted + rest)
    new = [chunk for chunk in changed.chunks if chunk not in known]
    print(f"new chunks: measured {len(new)} of {len(changed.chunks)}, required 1 to 4")
    assert 1 <= len(new) <= 4


def test_memory_does_not_grow_with_the_content() -> None:
    block = CONTENT[: 16 * SMALL]

    def peak(times: int) -> int:
        tracemalloc.start()
        chunker = Chunker(average=SMALL)
        for _ in range(times):
            chunker.write(block)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    few, many = peak(10), peak(200)
    more = 190 * 16 * 600  # names of chunks alone
    print(f"peak for {200 * len(block)} bytes: measured {many}, required < {few + more}")
    assert many < few + more < 200 * len(block) / 2


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastcdc.fastcdc_cy", None)
    chunker = Chunker()
    chunker.write(bytes(AVERAGE))
    assert chunker.blob().bytes == AVERAGE
    with pytest.raises(FlavourUnavailable, match="fastcdc_cy cannot be imported") as caught:
        cut(CONTENT)
    assert caught.value.fix == "pip install 'sdxl-trt[build]'"
