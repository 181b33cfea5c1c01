"""Limits on the memory of this process, found before work begins: libraries that meet them crash without a word."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from sdxl_trt.errors import OutOfMemory

_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = {"RLIMIT_DATA (ulimit -d)": resource.RLIMIT_DATA, "RLIMIT_AS (ulimit -v)": resource.RLIMIT_AS}


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
