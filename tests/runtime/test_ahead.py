"""Files of engines that come next: are they in memory before their turn?"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from models import Models

from sdxl_trt.runtime import Pipeline, ahead
from sdxl_trt.runtime.ahead import Ahead
from sdxl_trt.runtime.swapping import Turns

PAGE = mmap.PAGESIZE


def cached(path: Path) -> float:
    """Part of a file's pages that are in memory, as mincore(2) tells; looking brings in none."""
    mapped = np.memmap(path, np.uint8, "r")
    pages = np.zeros(-(-mapped.size // PAGE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(
        ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size), ctypes.c_void_p(pages.ctypes.data)
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return float(np.mean(pages & 1))


def comes(path: Path) -> bool:
    """All of a file is in memory, at the latest in a while: the system reads on its own."""
    deadline = time.monotonic() + 20
    while cached(path) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return cached(path) == 1


def evict(path: Path) -> None:
    """Have the system forget a file's pages, or skip the test where it does not."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(path) > 0.5:
        pytest.skip(f"the file system of {path} keeps its pages")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(os.urandom(2**23))
        evict(path)
    return paths


def test_files_are_in_memory_afterwards(files: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(files[1])
    reader = Ahead()
    reader.read([tmp_path / "gone", link, files[0]])
    assert comes(files[0])
    assert cached(files[1]) == 0  # links are not followed: they are refused later
    reader.read(files)
    assert comes(files[1])


def test_it_stops(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next piece, though there is more to read."""
    reader, pieces, at_work = Ahead(), list[int](), threading.Event()

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        pieces.append(start)
        at_work.set()
        assert reader._stopped.wait(20)

    monkeypatch.setattr(ahead, "PIECE", 2**20)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    reader.read(files)
    assert at_work.wait(20)
    reader.stop()
    assert pieces == [0]


class Watched:
    """A pipeline's turns, and the names of engines whose files were read ahead."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.read = list[Turns](), list[frozenset[Path]]()
        make, read = Turns.__init__, Ahead.read

        def noted(reader: Ahead, paths: tuple[Path, ...]) -> None:
            self.read.append(frozenset(paths))
            read(reader, paths)

        monkeypatch.setattr(Turns, "__init__", lambda turns, *rest: (self.made.append(turns), make(turns, *rest))[1])
        monkeypatch.setattr(Ahead, "read", noted)

    def names(self, pipe: Pipeline) -> list[str]:
        by_files = {frozenset(self.made[0]._files(entry)): name for name, entry in pipe.target.engines.items()}
        return [by_files[files] for files in self.read]


def test_what_comes_next_is_read_while_steps_run(demo_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle, bundle)
    before = dict[str, float | bool]()

    def look(what: str, done: int, total: int) -> None:
        """Between steps: what the decoder will be opened from."""
        if what != "denoising" or before:
            return
        before["vae_decoder"] = comes(files["vae_decoder"])
        before["vae_encoder"] = cached(files["vae_encoder"])

    with Pipeline.load(bundle, threads=1, memory="swap") as pipe:
        weights = {name: pipe.target.engines[name].weights[0] for name in ("vae_decoder", "vae_encoder")}
        files = {name: bundle / "blobs" / "sha256" / blob.sha256 for name, blob in weights.items()}
        for path in files.values():
            evict(path)
        pipe("a star", steps=1, seed=1, progress=look)
    assert before == {"vae_decoder": True, "vae_encoder": 0}  # a picture of text needs no encoder


def test_the_order_is_learned(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    with Pipeline.load(demo_bundle, threads=1, memory="swap") as pipe:
        pipe("a star", steps=1, seed=1)
        assert watched.names(pipe) == ["text_encoder_2", "step", "vae_decoder"]
        watched.read.clear()
        pipe("a ring", steps=1, seed=1)
        assert watched.names(pipe) == ["text_encoder_2", "step", "vae_decoder", "text_encoder"]
        watched.read.clear()
        for seed in (1, 2):  # what the encoders gave is kept
            pipe("a ring", steps=1, seed=seed)
        assert watched.names(pipe) == ["vae_decoder", "step", "vae_decoder", "step"]


def test_a_refiner_follows_the_base(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    with Pipeline.load(models.bundle("epsilon", "refiner"), threads=1, memory="swap") as pipe:
        pipe("a star", steps=5, seed=1, size=(64, 64), refiner_start=0.6)
        refiner = frozenset(watched.made[0]._files(pipe.target.refiner["step"]))
    assert watched.read.index(refiner) == 2  # after the second text encoder, and the base's step
