"""Which files and folders other users of this machine could write.

Root may write anything and counts as nobody else. What is mounted read-only is as safe as whoever mounted it: volumes
of containers come with the modes of somebody else's machine.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sdxl_trt.errors import NotTrusted

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def writable_by_others(path: Path, *, shared: bool = False) -> str | None:
    """Why others could write a file or folder (or put another in the place of a link), or None.

    Args:
        path: not followed where it is a link.
        shared: a folder like /tmp will do, where nobody can rename or delete what is not his (the sticky bit).

    Raises:
        OSError: it cannot be looked at.
    """
    found = path.lstat()
    if _read_only(path):
        return None
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user (uid {found.st_uid})"
    sticky = shared and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & _OTHERS_WRITE and not sticky and not stat.S_ISLNK(found.st_mode):
        return f"{path} may be written by others ({stat.filemode(found.st_mode)})"
    return None


def _read_only(path: Path) -> bool:
    place = path.parent if path.is_symlink() else path
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def way_writable_by_others(path: Path) -> str | None:
    """Why others could write a file, or put another in its place: looks at links and at every folder above too.

    Raises:
        OSError: the file is not there.
    """
    real = path.resolve(strict=True)
    above = (*path.absolute().parents, *real.parents)
    reasons = [writable_by_others(each, shared=True) for each in dict.fromkeys(above)]
    return next((reason for reason in (writable_by_others(real), *reasons) if reason), None)


def refuse_writable_by_others(bundle: Path, names: tuple[str, ...]) -> None:
    """Refuse a bundle that others could alter while it is in use: its folders, the files named, and every blob.

    Raises:
        NotTrusted: they could, or something in it is a link or no file; names the first.
    """
    for reason in _reasons(bundle.resolve(), names):
        raise NotTrusted(
            f"{bundle} could be altered by other users of this machine",
            got=reason,
            expected="files and folders that this user or root owns, and nobody else may write",
            fix=f"if nobody tampered with it: chmod -R go-w {bundle}, and chown it to the user that runs this",
        )


def _reasons(bundle: Path, names: tuple[str, ...]) -> Iterator[str]:
    blobs = bundle / "blobs"
    places = [(bundle, stat.S_ISDIR), *((bundle / name, stat.S_ISREG) for name in names)]
    places += [(folder, stat.S_ISDIR) for folder in (blobs, blobs / "sha256")]
    if (blobs / "sha256").is_dir():
        places += [(Path(entry.path), stat.S_ISREG) for entry in os.scandir(blobs / "sha256")]
    for path, expected in places:
        try:
            mode = path.lstat().st_mode
            reason = writable_by_others(path)
        except FileNotFoundError:  # whoever needs it says so
            continue
        if not expected(mode):
            yield f"{path} is {_kind(mode)}"
        elif reason:
            yield reason


def _kind(mode: int) -> str:
    for test, kind in ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file")):
        if test(mode):
            return kind
    return "neither file nor folder"
