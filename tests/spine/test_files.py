"""Files that appear whole or not at all, and folders with one writer."""

from __future__ import annotations

from pathlib import Path

import pytest

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
