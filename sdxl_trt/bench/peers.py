"""The peers' figures: diffusers eager and with torch.compile, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from sdxl_trt.bench.rows import Figure

PEERS: Final = {"diffusers eager": False, "diffusers torch.compile": True}
"""Names, and whether networks are compiled."""
NEEDED: Final = ("diffusers", "transformers", "torch")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a peer is to draw."""

    checkpoint: str
    """A folder in diffusers' layout."""
    device: str
    """As torch names it."""
    compiled: bool
    prompt: str
    size: tuple[int, int]
    steps: int
    guidance: float
    batches: tuple[int, ...]
    repeats: int
    threads: int


def measure_peer(who: str, job: Job) -> Iterator[Figure]:
    """The figures of one peer; where it cannot run, the reason in their place."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        yield from without(who, job.batches, f"{missing[0]} is not installed")
        return
    done = subprocess.run(
        [sys.executable, "-m", "sdxl_trt.bench.peer", json.dumps(dataclasses.asdict(job))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        yield from without(who, job.batches, f"it failed: {last[0]}")
        return
    for found in json.loads(done.stdout.splitlines()[-1])["batches"]:
        yield from _figures(who, found)


def without(who: str, batches: tuple[int, ...], reason: str) -> Iterator[Figure]:
    """In place of the figures of a peer that was not measured."""
    for batch in batches:
        yield Figure(who=who, what="whole picture", batch=batch, unit="ms", reason=reason)


def _figures(who: str, found: dict[str, Any]) -> Iterator[Figure]:
    batch, seconds = found["batch"], found["seconds"]
    for what, unit, samples in (
        ("first call", "ms", [1e3 * found["first"]]),
        ("whole picture", "ms", [1e3 * each for each in seconds]),
        ("throughput", "1/s", [batch / each for each in seconds]),
        ("host memory, peak", "MB", [found["host_peak"] / 1e6]),
        ("GPU memory allocated, peak", "MB", [found["gpu_peak"] / 1e6] if found["gpu_peak"] is not None else []),
    ):
        if samples:
            yield Figure(who=who, what=what, batch=batch, unit=unit, samples=tuple(samples))
