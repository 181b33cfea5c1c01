"""Cold start: from the start of a process to its picture, the bundle being built.

Each run is a new process that loads the demo model, makes one picture at the defaults (128×128, 30 Euler steps,
guidance 5, decoded) and writes it as PNG: `sdxl-trt run`, and the same with diffusers (`benchmarks.peer`), in turns.
Files are in the page cache after one run of each that is not counted.

to picture   wall time from just before the process is created until the file is complete under its name (the change
             time of its inode, which the kernel gives to one tick, up to 10 ms too early)
load         libraries and model, by the process's own clock
picture      prompt to file, by the process's own clock
to exit      wall time until the process is gone
peak memory  largest resident set, which counts the pages of mapped files
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.peer import EDGE, GUIDANCE, PACKAGES, PROMPT, STEPS
from benchmarks.report import Aim, Report, command, ratio
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.rows import Row
from sdxl_trt.demo_bundle import demo_bundle

SEED = 7
AIM_SECONDS = 1.5


@dataclass(frozen=True, kw_only=True)
class Start:
    """One process: seconds, and bytes."""

    to_picture: float
    load: float
    picture: float
    to_exit: float
    peak: int


def start(arguments: Sequence[str], png: Path) -> Start:
    """Run a program that writes `png` and prints its stages as JSON. This process stays small while it does:
    the kernel counts the memory of whoever creates a process as that process's own first.
    """
    began, clock = time.monotonic(), time.time()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"exit status {process.returncode}: {' '.join(arguments)}")
    seconds = json.loads(output)["seconds"]
    return Start(
        to_picture=png.stat().st_ctime - clock,
        load=seconds["load"],
        picture=seconds["pictures"],
        to_exit=ended - began,
        peak=usage.ru_maxrss * 1024,
    )


def rows(who: str, starts: Sequence[Start]) -> list[Row]:
    """One row per quantity, the headline first."""
    quantities = {
        "to picture": ("s", [s.to_picture for s in starts]),
        "load": ("s", [s.load for s in starts]),
        "picture": ("s", [s.picture for s in starts]),
        "to exit": ("s", [s.to_exit for s in starts]),
        "peak memory": ("MB", [s.peak / 1e6 for s in starts]),
    }
    return [Row(who=who, what=what, unit=unit, samples=tuple(values)) for what, (unit, values) in quantities.items()]


def difference(one: Path, other: Path) -> Row:
    """How far the two pictures are apart: that both sides did the same work."""
    import numpy as np
    from PIL import Image

    a, b = (np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (one, other))
    return Row(who="both", what="largest pixel difference", unit="of 255", samples=(float(np.abs(a - b).max()),))


def measure(runs: int) -> Report:
    """Process start to picture, beside diffusers."""
    threads, bundle = usable_cpus(), demo_bundle()
    with tempfile.TemporaryDirectory() as folder:
        our_png, their_png = Path(folder, "ours.png"), Path(folder, "theirs.png")
        program = str(Path(sys.executable).with_name("sdxl-trt"))
        options = ["--bundle", str(bundle), "-o", str(our_png), "--seed", str(SEED), "--threads", str(threads)]
        ours = [program, "run", PROMPT, *options, "--json"]
        theirs = [sys.executable, "-m", "benchmarks.peer", str(their_png), str(SEED), str(threads)]
        pairs = [(start(ours, our_png), start(theirs, their_png)) for _ in range(1 + runs)][1:]
        same = difference(our_png, their_png)
    our_rows, their_rows = rows("sdxl-trt run", [a for a, _ in pairs]), rows("diffusers", [b for _, b in pairs])
    return Report(
        title="Cold start: process start to picture, bundle built, page cache warm",
        settings={"size": f"{EDGE}×{EDGE}", "steps": STEPS, "guidance": GUIDANCE, "seed": SEED, "threads": threads},
        distributions=("sdxl-trt", "onnxruntime", "numpy", "tokenizers", *PACKAGES),
        rows=[*our_rows, *their_rows, ratio(their_rows[0], our_rows[0], "to picture"), same],
        notes=("not measured: a start with the files not in the page cache",),
        aims=[Aim(row=our_rows[0], bound=AIM_SECONDS, at_most=True)],
    )


if __name__ == "__main__":
    command("cold_start", measure, runs=7)()
