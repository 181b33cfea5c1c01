"""Time and memory of a command, children included, as seen from outside."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.1
"""Seconds between two looks at memory."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a command took."""

    seconds: float
    anonymous: int
    """Most memory at any one moment that no file backs, in bytes, of all its processes together."""
    resident: int
    """Most memory in all at any one moment, mapped files included (the system can drop those when it needs room)."""


def watch(command: Sequence[str | Path], *, log: Path | None = None) -> Watched:
    """Run a command to its end, looking at its memory every `EVERY` seconds.

    Args:
        command: program and arguments.
        log: where its output goes; none: where this program's goes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.perf_counter()
    anonymous = resident = 0
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=output))
        while process.poll() is None:
            now = _memory(process.pid)
            anonymous, resident = max(anonymous, now[0]), max(resident, now[1])
            time.sleep(EVERY)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Watched(seconds=time.perf_counter() - started, anonymous=anonymous, resident=resident)


def _memory(pid: int) -> tuple[int, int]:
    """Anonymous and resident bytes of a process and its descendants; 0 for those that have just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0, 0
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    anonymous, resident = (1024 * int(fields.get(name, ["0"])[0]) for name in ("RssAnon", "VmRSS"))  # a zombie has none
    for child in children:
        more = _memory(int(child))
        anonymous, resident = anonymous + more[0], resident + more[1]
    return anonymous, resident
