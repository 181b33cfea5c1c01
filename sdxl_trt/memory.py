"""This host's memory, and limits on that of this process: libraries that meet them crash without a word."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sdxl_trt.errors import OutOfMemory

_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = {"RLIMIT_DATA (ulimit -d)": resource.RLIMIT_DATA, "RLIMIT_AS (ulimit -v)": resource.RLIMIT_AS}


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Bytes."""

    total: int
    available: int
    """Without swapping, as the kernel estimates: proc(5), MemAvailable."""
    limit: int | None
    """The lowest that this process has."""


def host_memory() -> HostMemory:
    """What there is now."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    sizes = {name: 1024 * int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
    limit, _ = min(_limits(), default=(None, ""))
    return HostMemory(total=sizes["MemTotal"], available=sizes["MemAvailable"], limit=limit)


def check_memory(what: str, needed: int) -> None:
    """Refuse work that a limit on this process leaves no room for.

    Args:
        what: the work.
        needed: bytes.

    Raises:
        OutOfMemory: the lowest limit is below that.
    """
    limit, name = min(_limits(), default=(needed, ""))
    if limit < needed:
        raise OutOfMemory(
            f"{what} needs more memory than this process may take",
            got=f"a limit of {limit / 1e9:.2f} GB: {name}",
            expected=f"at least {needed / 1e9:.2f} GB",
            fix="raise the limit",
        )


def _limits() -> Iterator[tuple[int, str]]:
    for name, which in _LIMITS.items():
        limit, _ = resource.getrlimit(which)
        if limit != resource.RLIM_INFINITY:
            yield limit, name
    for path in _cgroup_limits():
        text = path.read_text(encoding="ascii").strip()
        if text.isdecimal():  # else 'max'
            yield int(text), str(path)


def _cgroup_limits() -> list[Path]:
    """memory.max (cgroup v2) of this process's control group and of those that it is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::")), "")
    groups = [_CGROUPS / own, *(parent for parent in (_CGROUPS / own).parents if parent.is_relative_to(_CGROUPS))]
    return [group / "memory.max" for group in groups if (group / "memory.max").is_file()]


def give_back() -> None:
    """Give memory that was freed in pieces back to the system, where its allocator can (glibc's does not unasked)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
