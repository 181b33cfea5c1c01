"""Files that appear whole or not at all, and folders with one writer."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sdxl_trt import files
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


def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path, places = tmp_path / "file", 0
    while places < 100:
        path.write_text("old")
        interrupt = Interrupt(after=places)
        sys.settrace(interrupt.trace)
        try:
            with atomic_write(path) as file:
                file.write(b"new")
        except KeyboardInterrupt:
            places += 1
        finally:
            sys.settrace(None)
        assert [each.name for each in tmp_path.iterdir()] == ["file"], interrupt.at
        assert path.read_text() in {"old", "new"}
        if interrupt.at is None:
            break
    print(f"interrupted at {places} places")
    assert 6 <= places < 100


class Interrupt:
    """Ctrl-C before a line of sdxl_trt/files.py: the first of them, or the one after so many others."""

    def __init__(self, *, after: int) -> None:
        self._left, self.at = after, None

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != files.__file__:
            return None
        if event == "line" and self.at is None:
            self._left -= 1
            if self._left < 0:
                self.at = frame.f_lineno
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
