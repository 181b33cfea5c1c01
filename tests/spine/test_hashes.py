"""Remembered hashes: they save the reading, and notice every way a file can change."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdxl_trt import hashes
from sdxl_trt.hashes import REMEMBERED_FROM, remembered_sha256
from sdxl_trt.paths import cache_folder

SIZE = 2**16
OLD = 0.1
"""Seconds after which a file counts as left alone, here: on a file system whose times tick every few milliseconds."""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "REMEMBERED_FROM", SIZE)
    monkeypatch.setattr(hashes, "_QUIET", OLD * 0.9e9)
    return cache_folder() / "hashes"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is remembered, by now."""
    path = tmp_path / "folder" / "weights"
    path.parent.mkdir()
    write(path, b"weights")
    time.sleep(OLD)
    assert reads(path)
    return path


def write(path: Path, text: bytes) -> None:
    """SIZE bytes that begin with `text`; the rest takes no room on the disk."""
    path.write_bytes(text)
    os.truncate(path, SIZE)


def reads(path: Path) -> bool:
    """Whether the file had to be read; its hash is right in any case."""
    seen: list[tuple[str, int, int]] = []
    assert remembered_sha256(path, lambda *step: seen.append(step)) == hashlib.sha256(path.read_bytes()).hexdigest()
    if seen:
        assert {stage for stage, _, _ in seen} == {f"hash {path.parent.name}/{path.name}"}
        assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
        assert seen[-1][1:] == (path.stat().st_size, path.stat().st_size)
    return bool(seen)


def test_it_is_read_once(file: Path) -> None:
    assert not reads(file)
    link = file.parent.parent / "link"
    link.symlink_to(file)
    assert not reads(link)


def restored(path: Path) -> None:
    """Other bytes, the same size, and the old time of modification, as archives and backups set it."""
    status = path.stat()
    write(path, b"changed")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def replaced(path: Path) -> None:
    other = path.with_name("other")
    write(other, b"another")
    shutil.copystat(path, other)
    other.replace(path)


def mapped(path: Path) -> None:
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as memory:
        memory[SIZE - 1 :] = b"x"


def appended(path: Path) -> None:
    with path.open("ab") as opened:
        opened.write(b"more")


def in_place(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.seek(SIZE // 2)
        opened.write(b"x")


@pytest.mark.parametrize("change", [restored, replaced, mapped, appended, in_place])
def test_a_change_is_noticed(file: Path, change: Callable[[Path], None]) -> None:
    change(file)
    assert reads(file)
    time.sleep(OLD)
    assert reads(file)  # what was hashed right after a change is not remembered
    assert not reads(file)


def test_the_second_write_through_a_memory_map_is_noticed(tmp_path: Path) -> None:
    """Only the first write to a page sets the times of the file, until the page is written back."""
    path = tmp_path / "weights"
    write(path, b"weights")
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as memory:
        if not times_mapped_writes(memory, path):
            pytest.skip("this file system does not time mapped writes")
        memory[:1] = b"1"
        time.sleep(OLD)
        assert reads(path)
        assert not reads(path)
        memory[:1] = b"2"
        assert reads(path)


def times_mapped_writes(memory: mmap.mmap, path: Path) -> bool:
    memory.flush()
    before = path.stat().st_ctime_ns
    time.sleep(OLD)
    memory[:1] = b"0"
    return path.stat().st_ctime_ns != before


def test_a_change_while_it_is_read_is_noticed(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "weights"
    write(path, b"weights")
    time.sleep(OLD)

    def change(_stage: str, done: int, _total: int) -> None:
        if done == SIZE:
            in_place(path)

    remembered_sha256(path, change)
    assert not cache.exists()
    time.sleep(OLD)
    assert reads(path)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b"[" * 10**5, b'{"state": null}', None])
def test_a_damaged_entry_is_ignored_and_written_again(file: Path, cache: Path, damage: bytes | None) -> None:
    (entry,) = cache.iterdir()
    content = entry.read_text()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    entry.write_bytes(content.replace(digest, "0" * 64).encode() if damage is None else damage)
    assert reads(file)
    assert entry.read_text() == content


@pytest.mark.parametrize("place", ["file/cache", "/proc/cache"])
def test_an_unwritable_cache_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (file.parent / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parent / place))
    assert reads(file)
    assert reads(file)


def test_the_oldest_entries_go(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "MOST_ENTRIES", 2)
    others = [file.with_name(name) for name in ("b", "c")]
    for other in others:
        write(other, other.name.encode())
    time.sleep(OLD)
    assert all(reads(other) for other in others)
    assert len(list(cache.iterdir())) == 2
    assert not any(reads(other) for other in others)
    assert reads(file)


def test_a_file_of_a_second_ago_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    write(file, b"new")
    os.truncate(file, REMEMBERED_FROM)
    monkeypatch.setenv("XDG_CACHE_HOME", str(file.parent / "cache"))
    time.sleep(1)
    assert reads(file)
    time.sleep(1.1)
    assert reads(file)
    assert not reads(file)


def test_many_writers(file: Path, cache: Path) -> None:
    """Processes that hash the same files at the same time leave whole entries alone."""
    program = f"""
import sys
from pathlib import Path
from sdxl_trt import hashes

hashes.REMEMBERED_FROM = {SIZE}
for path in sys.argv[1:]:
    print(hashes.remembered_sha256(Path(path)))
"""
    files = [file, *(file.with_name(name) for name in "bc")]
    for other in files[1:]:
        write(other, other.name.encode())
    time.sleep(2.1)
    shutil.rmtree(cache)
    command = [sys.executable, "-c", program, *map(str, files)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert [process.communicate()[0].split() for process in running] == [expected] * 4
    assert len(list(cache.iterdir())) == 3
    assert not any(reads(path) for path in files)


def test_a_small_file_is_not_worth_it(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"small")
    assert remembered_sha256(path) == hashlib.sha256(b"small").hexdigest()
    assert not cache.exists()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remembered_sha256(tmp_path / "nothing")
