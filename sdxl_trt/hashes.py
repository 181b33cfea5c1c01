"""SHA-256 of large files, computed once and remembered for as long as nobody touches the file.

What is remembered is believed only while the file at that path is the same one (device and inode), of the same size,
with the same times of modification and of status change. The last is the kernel's own: nobody sets it back, as `touch`
and `tar` do with the first. Three more rules close the gaps that times leave:

* They tick coarsely. A file that was touched less than two seconds before it was read could be touched again within
  the same tick, so it is hashed and not remembered (git calls such entries 'racily clean').
* A program that maps a file into memory can write a page more than once while only the first write sets the times.
  Writing back what is pending before hashing makes the next such write count as a first one again. (On ext4, XFS and
  btrfs; tmpfs does not time mapped writes at all.)
* The file's state after hashing must be that of before.

What this cannot see is a disk that rots, or somebody who sets the system's clock: what was built by others, and what
goes to others, is read and hashed in full, each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.decode import DecodeError, decode, loads
from sdxl_trt.errors import OutputError
from sdxl_trt.files import sha256_json, sha256_of, write_json
from sdxl_trt.paths import cache_folder
from sdxl_trt.progress import Progress, silent

REMEMBERED_FROM = 2**26
"""Bytes. To hash a smaller file takes about as long as to remember it."""

MOST_ENTRIES = 512

_QUIET = 2_000_000_000
"""Nanoseconds. FAT's times are the coarsest in use: they tick every two seconds."""

_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class _State:
    """What changes when a file does; times in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A remembered hash. Each is a file of its own, named by the path, so that writers need not wait for each other."""

    state: _State
    sha256: str
    check: str

    def __post_init__(self) -> None:
        if self.check != _check(self.state, self.sha256):
            raise ValueError("damaged")


def _check(state: _State, sha256: str) -> str:
    return sha256_json([dataclasses.asdict(state), sha256])


def remembered_sha256(path: Path, progress: Progress = silent) -> str:
    """The SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits.

    Args:
        path: the file, or a link to it.
        progress: told of bytes, where a large file has to be read.

    Raises:
        OSError: the file cannot be read. (Where nothing can be remembered, it is read each time.)
    """
    if path.stat().st_size < REMEMBERED_FROM:
        return sha256_of(path)
    entry = _entry_file(path)
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        known = _recall(entry)
        if known and known.state == _state(descriptor):
            return known.sha256
        settled, started = _settle(descriptor), time.time_ns()
        state = _state(descriptor)
        sha256 = _hash(descriptor, f"hash {path.parent.name}/{path.name}", state.size, progress)
        quiet = started - max(state.modified, state.changed) > _QUIET
        if settled and quiet and state == _state(descriptor):
            _remember(entry, _Entry(state=state, sha256=sha256, check=_check(state, sha256)))
        return sha256


def _state(descriptor: int) -> _State:
    status = os.fstat(descriptor)
    return _State(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified=status.st_mtime_ns,
        changed=status.st_ctime_ns,
    )


def _settle(descriptor: int) -> bool:
    """Write back what programs wrote through memory maps; false where the file system does not do that."""
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    return True


def _hash(descriptor: int, stage: str, size: int, progress: Progress) -> str:
    digest, block, done = hashlib.sha256(), memoryview(bytearray(_BLOCK)), 0
    while count := os.readv(descriptor, [block]):
        digest.update(block[:count])
        done += count
        progress(stage, min(done, size - 1), size)
    progress(stage, size, size)
    return digest.hexdigest()


def _entry_file(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return cache_folder() / "hashes" / f"{name[:32]}.json"


def _recall(entry: Path) -> _Entry | None:
    """What was remembered; nothing where that cannot be read, whatever the reason."""
    try:
        return decode(_Entry, loads(entry.read_bytes(), max_bytes=2**16))
    except (OSError, DecodeError):
        return None


def _remember(file: Path, entry: _Entry) -> None:
    """Write an entry, and drop the oldest where there are too many. Where that cannot be, files are hashed again."""
    with contextlib.suppress(OutputError, OSError):
        write_json(file, dataclasses.asdict(entry))
        entries = sorted(file.parent.iterdir(), key=lambda other: other.stat().st_mtime_ns)
        for oldest in entries[:-MOST_ENTRIES]:
            oldest.unlink()
