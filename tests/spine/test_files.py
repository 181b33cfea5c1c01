"""Files that appear whole or not at all, and folders with one writer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sdxl_trt import files
from sdxl_trt.bundle import BlobStore, blobs
from sdxl_trt.errors import OutputError
from sdxl_trt.files import TEMPORARY_PREFIX, atomic_write, exclusive


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def write_file(folder: Path) -> None:
    with atomic_write(folder / "file") as file:
        file.write(b"new")


def write_blob(folder: Path) -> None:
    BlobStore(folder).put_bytes(b"new")


@pytest.mark.parametrize("write", [write_file, write_blob])
def test_an_interrupt_at_any_line_leaves_nothing_unfinished(tmp_path: Path, write: Callable[[Path], None]) -> None:
    BlobStore(tmp_path).folder.mkdir(parents=True)
    for places in range(100):
        (tmp_path / "file").write_text("old")
        interrupt = Interrupt(after=places)
        sys.settrace(interrupt.trace)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                write(tmp_path)
        finally:
            sys.settrace(None)
        assert not list(tmp_path.rglob(f"{TEMPORARY_PREFIX}*")), interrupt.at
        assert (tmp_path / "file").read_text() in {"old", "new"}
        if interrupt.at is None:
            break
    print(f"interrupted at {places} places")
    assert 6 <= places < 99


class Interrupt:
    """Ctrl-C before a line of what writes files: the first of them, or the one after so many others."""

    def __init__(self, *, after: int) -> None:
        self._left, self.at = after, None

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in {files.__file__, blobs.__file__}:
            return None
        if event == "line" and self.at is None:
            self._left -= 1
            if self._left < 0:
                self.at = f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self.trace


def test_a_writer_clears_its_own_leftovers_and_nobody_elses(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "deep" / f"{TEMPORARY_PREFIX}x", tmp_path / "deep" / ".tmp-x"
    ours.parent.mkdir()
    for path in (ours, theirs):
        path.write_text("half")
    with exclusive(tmp_path):
        assert not ours.exists()
        assert theirs.exists()
        with pytest.raises(OutputError, match="another process is writing"), exclusive(tmp_path):
            pass
