"""Many requests to the demo model on this CPU, in three ways: one at a time, in batches, step by step.

Requests come at random (Poisson, a fixed seed) whether earlier ones are done or not: a third of them of 1 to 4 steps
without guidance, the others of 9 to 30 with it, of three sizes, from several clients. The same ones go to each way, one
way after the other, each with all threads. Loads are parts of the capacity: what one request at a time, back to back,
comes to in the same run. A latency counts from when the request was due to when its picture is there.

one at a time  `Pipeline.run` in the order of arrival
request-level  batches of one size, padded: those that are finished keep their rows, and wait for the longest. Limit,
               wait and kind of batches are those of many that, by simulation with this machine's step times, serve
               short requests soonest
step-level     the service
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.report import RESULTS, Aim, Report, publish
from benchmarks.serving.comparing import (
    AIMED,
    ALIKE,
    HEADER,
    LOADS,
    SEED,
    WAYS,
    Run,
    Serve,
    aims,
    beside,
    greedy_requests,
    requests_at,
    run,
)
from benchmarks.serving.figures import latency
from benchmarks.serving.load import Asked, deck
from benchmarks.serving.overhead import PAIRS, measure_overhead
from benchmarks.serving.plot import Panel, latency_plot
from benchmarks.serving.tuning import Measured, Tuned, tune
from benchmarks.serving.ways import OneAtATime, RequestLevel, StepLevel
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.rows import Row
from sdxl_trt.paths import DEMO_CHECKPOINT, cache_folder

NAME = "serve"
PLOT = Path(__file__).parents[1] / "docs" / "serving.svg"
SIZES: Final = ((96, 96), (128, 128), (192, 192))
PANELS: Final = {"short": "requests of 1 to 4 steps", "all": "all requests"}
SLOTS = 8
OVERHEAD_SECONDS = 5e-3


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured."""

    loads: Sequence[float]
    seconds: float
    """That requests come for at each load."""
    rounds: int
    """Times that each request is made alone."""
    pairs: int
    """Of pictures, for what HTTP adds."""


QUICK: Final = Extent(loads=(0.5, AIMED), seconds=3.0, rounds=1, pairs=30)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What requests take where nobody else asks."""

    seconds: dict[Asked, float]
    capacity: float
    """Requests per second, back to back."""

    def __call__(self, asked: Asked) -> float:
        """Seconds of a request."""
        return self.seconds[asked]


def build() -> Path:
    """The demo model's bundle for many pictures at once, built if it is not there."""
    bundle = cache_folder() / "serving" / DEMO_CHECKPOINT.name
    (small, *_, large) = ("x".join(map(str, size)) for size in SIZES)
    sizes = ["--sizes", f"{small}..{large}", "--batch", str(SLOTS), "-o", str(bundle)]
    command = [sys.executable, "-m", "sdxl_trt", "build", str(DEMO_CHECKPOINT), "--gpu", "cpu", *sizes]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return bundle


def measure_alone(way: OneAtATime, cards: Sequence[Asked], rounds: int) -> Alone:
    """Every request of the deck back to back, shuffled, so many times."""
    shuffled = random.Random(SEED).sample(list(cards) * rounds, len(cards) * rounds)
    found = dict[Asked, list[float]]()
    started = moment = time.perf_counter()
    for number, asked in enumerate(shuffled):
        way.make(asked, number)
        before, moment = moment, time.perf_counter()
        found.setdefault(asked, []).append(moment - before)
    seconds = {asked: statistics.median(times) for asked, times in found.items()}
    return Alone(seconds=seconds, capacity=len(shuffled) / (moment - started))


def measured_device(way: RequestLevel, alone: Alone) -> Measured:
    """This machine, for a simulation."""
    steps = {size: way.step_seconds(size) for size in SIZES}
    rest = {
        size: statistics.median(
            max(0.0, seconds - asked.steps * steps[size][asked.rows])
            for asked, seconds in alone.seconds.items()
            if asked.size == size
        )
        for size in SIZES
    }
    return Measured(slots=way.slots, steps=steps, rest=rest)


def measure_runs(bundle: Path, extent: Extent) -> tuple[Alone, Tuned, list[Run]]:
    """All loads, and one with a greedy client."""
    cards = deck(SIZES)
    one, several, service = OneAtATime(bundle, SIZES), RequestLevel(bundle, SIZES), StepLevel(bundle, SIZES)
    alone = measure_alone(one, cards, extent.rounds)
    simulated = requests_at(AIMED, cards, alone.capacity, 300 / alone.capacity)
    tuned = tune(measured_device(several, alone), simulated, 1 / alone.capacity)
    ways = list[Serve]([one, partial(several, gather=tuned.best), service])
    serves = dict(zip(WAYS, ways, strict=True))
    click.echo(HEADER)
    runs = [run(load, requests_at(load, cards, alone.capacity, extent.seconds), serves, alone) for load in extent.loads]
    runs.append(run(AIMED, greedy_requests(cards, alone.capacity, extent.seconds), serves, alone))
    click.echo()
    service.service.drain()
    return alone, tuned, runs


def measure(bundle: Path, extent: Extent, plot: Path | None) -> Report:
    """All that there is to say, the plot where it is wanted."""
    alone, tuned, runs = measure_runs(bundle, extent)
    capacity = Row(who=WAYS[0], what="capacity", unit="1/s", samples=(alone.capacity,))
    overhead = measure_overhead(bundle, min(SIZES), extent.pairs)
    if plot is not None:
        plot.write_text(draw([each for each in runs if not each.greedy]), encoding="utf-8")
    return Report(
        title="Serving the demo model on the CPU in three ways, float32",
        settings={
            "seconds": f"{extent.seconds:g}, at {AIMED:g}× twice that",
            "sizes": ", ".join(f"{width}×{height}" for width, height in SIZES),
            "slots": SLOTS,
            "threads": usable_cpus(),
        },
        distributions=("sdxl-trt", "onnxruntime", "numpy", "pillow", "fastapi", "uvicorn"),
        rows=[capacity, *(row for each in runs for row in beside(each)), *overhead],
        aims=[] if extent is QUICK else wanted(runs, overhead[-1]),
        notes=(str(tuned), f"Rates within {1 - ALIKE:.0%} of one another are taken as the same."),
        details=details(alone, tuned, runs),
    )


def wanted(runs: Sequence[Run], overhead: Row) -> list[Aim]:
    """What should be reached."""
    reached = [aim for each in runs if each.load == AIMED and not each.greedy for aim in aims(each)]
    return [*reached, Aim(row=overhead, bound=OVERHEAD_SECONDS, at_most=True)]


def details(alone: Alone, tuned: Tuned, runs: Sequence[Run]) -> dict[str, Any]:
    """For the JSON file."""
    return {
        "seconds alone": [
            {"steps": asked.steps, "guided": asked.guided, "size": asked.size, "seconds": seconds}
            for asked, seconds in alone.seconds.items()
        ],
        "request-level batching, simulated p95 of short requests": tuned.tried,
        "runs": [
            each.as_json() | {"latencies": {way: served.latencies for way, served in each.served.items()}}
            for each in runs
        ],
    }


def draw(runs: Sequence[Run]) -> str:
    """Latency against load."""
    loads = [each.load for each in runs]
    panels = [
        Panel(name=name, lines={way: [each.figures(way)[latency(95, kind)] for each in runs] for way in WAYS})
        for kind, name in PANELS.items()
    ]
    return latency_plot("95 % of requests are answered within", loads, panels)


@click.command(NAME)
@click.option("--seconds", type=click.FloatRange(1), default=45.0, show_default=True, help="Of requests at a load.")
@click.option(
    "--load", "loads", type=float, multiple=True, default=LOADS, show_default=True, help="Repeat for several."
)
@click.option("--quick", is_flag=True, help="A minute, for CI: two loads, few requests, no aims and no plot.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="[default: the demo model's, built first]")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
@click.option("--plot", type=click.Path(path_type=Path), default=PLOT, help="The SVG file.")
def main(seconds: float, loads: tuple[float, ...], quick: bool, bundle: Path | None, output: Path, plot: Path) -> None:
    """Serve the same requests to the demo model in three ways, at several loads."""
    extent = QUICK if quick else Extent(loads=sorted(loads), seconds=seconds, rounds=3, pairs=PAIRS)
    publish(NAME, lambda: measure(bundle or build(), extent, None if quick else plot), output)


if __name__ == "__main__":
    main()
