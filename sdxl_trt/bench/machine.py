"""The machine that figures were measured on, and the versions of what was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

QUIET = 0.05
"""Part of the CPUs that others may use while a figure is measured that is to be quoted."""


def usable_cpus() -> int:
    """CPUs that this process may run on: the number of threads that both sides of a comparison get."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """Processor, memory, system and Python."""
    return {
        "cpu": _cpu(),
        "usable_cpus": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not installed.
    """
    return {name: importlib.metadata.version(name) for name in distributions}


def installed(distributions: Iterable[str]) -> list[str]:
    """Those that are installed."""
    return [name for name in distributions if any(importlib.metadata.distributions(name=name))]


def peak_memory() -> int:
    """The most memory in bytes that this process had resident, mapped files included: proc(5), VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


class Disturbance:
    """How much of the machine everybody else takes, from its creation on.

    It decides what a figure is worth: threads that wait for one another by spinning, as torch's do, run many times
    slower when they do not have the processors for themselves.
    """

    def __init__(self) -> None:
        self._busy, self._total, self._own = *_machine_seconds(), _own_seconds()

    def share(self) -> float:
        """Part of all CPU time that neither this process nor its finished children used, 0 to 1."""
        busy, total = _machine_seconds()
        others = busy - self._busy - (_own_seconds() - self._own)
        return max(0.0, others / (total - self._total)) if total > self._total else 0.0

    def verdict(self) -> str:
        """The same in words."""
        others = self.share()
        noisy = "" if others <= QUIET else ": NOT a quiet machine, measure again"
        return f"others used {others:.0%} of the CPUs meanwhile{noisy}"


def _machine_seconds() -> tuple[float, float]:
    """CPU time of all processes (what a hypervisor stole included), and all there was, since boot: proc(5), stat."""
    fields = Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]
    seconds = [int(field) / os.sysconf("SC_CLK_TCK") for field in fields]
    idle = seconds[3] + seconds[4]  # idle, and idle while waiting for a disk
    return sum(seconds) - idle, sum(seconds)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu() -> str:
    """The processor's name; on processors that /proc/cpuinfo does not name, the architecture."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, 'unnamed')} ({platform.machine()})"
