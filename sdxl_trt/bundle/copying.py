"""Copies of files that share their disk blocks where they can."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from sdxl_trt.files import no_links


def copy(source: BinaryIO, descriptor: int) -> None:
    """Copy a file's bytes inside the kernel, which shares the blocks where the file system can (btrfs, XFS)."""
    try:
        while os.copy_file_range(source.fileno(), descriptor, 2**30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        with os.fdopen(os.dup(descriptor), "wb") as target:
            shutil.copyfileobj(source, target)


def link_or_copy(source: Path, target: Path) -> bool:
    """Make `target` a hard link to a file, or a copy where that cannot be.

    Returns:
        Whether it was made: the source may be gone, or not be readable.

    Raises:
        OSError: the target cannot be written.
    """
    if link(source, target):
        return True
    try:
        file = open(source, "rb", opener=no_links)  # noqa: SIM115 (closed below)
    except OSError:
        return False
    with file, target.open("xb", buffering=0) as made:
        copy(file, made.fileno())
        os.fsync(made.fileno())
        os.fchmod(made.fileno(), 0o644)
    return True


def link(source: Path, target: Path) -> bool:
    """Make `target` a hard link to a file that nobody else can write to; false where that cannot be."""
    try:
        os.link(source, target, follow_symlinks=False)
        if _ours_alone(target.lstat()):
            return True
        target.unlink()
    except OSError:  # it is gone; or another file system, one without links, or too many of them
        pass
    return False


def _ours_alone(found: os.stat_result) -> bool:
    others = stat.S_IWGRP | stat.S_IWOTH
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & others
