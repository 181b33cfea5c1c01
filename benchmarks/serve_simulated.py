"""The three ways of `benchmarks.serve` with SDXL on GPUs that are not here: a simulation, in seconds.

What a step, a prompt and a picture take is estimated, from operations, bytes and the part of the peak that published
engines reached (`benchmarks.serving.estimates`; the arithmetic is in the JSON file). Step-level batching is simulated
through the service's own scheduler. Nothing is random but the requests, which are always the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.report import RESULTS, Report, publish
from benchmarks.serving.comparing import (
    AIMED,
    HEADER,
    LOADS,
    WAYS,
    Run,
    Serve,
    beside,
    greedy_requests,
    requests_at,
    run,
)
from benchmarks.serving.estimates import Estimate
from benchmarks.serving.figures import Served
from benchmarks.serving.load import Arrival, Size, deck
from benchmarks.serving.simulate import StepLevel, serve_batches
from benchmarks.serving.tuning import Tuned, tune
from benchmarks.serving.turns import Gather
from sdxl_trt.bench.rows import Row

NAME = "serve_simulated"
GPUS: Final = ("rtx3060", "rtx4090", "h200")
SLOTS = 4
"""What `sdxl-trt build` builds for where nothing is said."""
SMALL, LARGE = (512, 512), (1024, 1024)
SIZES: Final = ((SMALL, LARGE), (LARGE,), (SMALL,))
REQUESTS = 300
"""That come in the time of a run at the capacity."""


def simulate(device: Estimate, sizes: Sequence[Size], loads: Sequence[float]) -> tuple[Tuned, list[Run]]:
    """All loads on one GPU.

    Args:
        device: the GPU.
        sizes: that are asked for, as often each.
        loads: in parts of the capacity.
    """
    cards = deck(sizes)
    mean = sum(map(device.alone, cards)) / len(cards)
    seconds = REQUESTS * mean
    tuned = tune(device, requests_at(AIMED, cards, 1 / mean, seconds), mean)

    def step_level(arrivals: Sequence[Arrival]) -> Served:
        return StepLevel(device, sizes)(arrivals)

    one, several = (partial(serve_batches, device, gather=gather) for gather in (Gather(slots=1), tuned.best))
    serves = dict(zip(WAYS, list[Serve]([one, several, step_level]), strict=True))
    runs = [run(load, requests_at(load, cards, 1 / mean, seconds), serves, device.alone) for load in loads]
    return tuned, [*runs, run(AIMED, greedy_requests(cards, 1 / mean, seconds), serves, device.alone)]


def measure() -> Report:
    """All GPUs and sizes."""
    rows, details = list[Row](), dict[str, Any]()
    for gpu in GPUS:
        device = Estimate.of(gpu, SLOTS)
        for sizes in SIZES:
            name = f"{device.gpu.name}, {' and '.join(f'{width}²' for width, _ in sizes)}"
            click.echo(f"\n{name}\n{HEADER}")
            tuned, runs = simulate(device, sizes, LOADS)
            click.echo(tuned)
            rows += [
                dataclasses.replace(row, what=f"{name}, {row.what}")
                for each in runs
                if each.load == AIMED
                for row in beside(each)
            ]
            details[name] = {
                "arithmetic": {f"{width}×{height}": device.arithmetic((width, height)) for width, height in sizes},
                "request-level batching": tuned.tried,
                "runs": [each.as_json() for each in runs],
            }
    return Report(
        title="Serving SDXL in three ways, simulated",
        settings={"slots": SLOTS, "requests": f"{REQUESTS} times the load", "a third": "1 to 4 steps, no guidance"},
        distributions=("sdxl-trt", "numpy"),
        rows=rows,
        notes=("Estimated: step times are arithmetic on published figures, and nothing was run.",),
        details=details,
        timed=False,
    )


@click.command(NAME)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, help="Folder of the JSON file.")
def main(output: Path) -> None:
    """Simulate RTX 3060, RTX 4090 and H200 at 512² and 1024²."""
    publish(NAME, measure, output)


if __name__ == "__main__":
    main()
