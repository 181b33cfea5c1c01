"""Pictures per second on the CPU, beside diffusers eager: same weights, prompt, seeds, steps and threads, both float32.

Each side is loaded once, in a process of its own, and they make the same pictures in turns: 128×128, 30 Euler steps,
guidance 5, decoding included. (In one process, each would run while the other's threads still spin.) diffusers decodes
a batch at once, sdxl-trt picture by picture; diffusers encodes the prompt each time, sdxl-trt the first time alone. The
largest difference of their final latents, over the largest magnitude, shows that the work is the same.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peer import EDGE, GUIDANCE, PACKAGES, PROMPT, STEPS, run_diffusers
from benchmarks.report import Aim, Report, command, ratio
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.peer import load_diffusers
from sdxl_trt.bench.rows import Row
from sdxl_trt.demo_bundle import demo_bundle
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.runtime import Pipeline, Request, Result

BATCHES = (1, 4)
AIM_RATIO = 2.0

Seeds = tuple[int, ...]


@cache
def our_pipeline() -> Pipeline:
    """Loaded once per process."""
    return Pipeline.load(demo_bundle(), threads=usable_cpus())


@cache
def their_pipeline() -> Any:
    """Loaded once per process."""
    return load_diffusers(DEMO_CHECKPOINT, usable_cpus())


def ours(seeds: Seeds, output: str = "image") -> Result:
    """One picture per seed."""
    request = Request(prompt=PROMPT, seed=seeds, steps=STEPS, guidance=GUIDANCE, size=(EDGE, EDGE))
    return our_pipeline().run(request, output=output)


def theirs(seeds: Seeds) -> None:
    """One picture per seed."""
    run_diffusers(their_pipeline(), seeds)


def their_latents(seeds: Seeds) -> NDArray[np.float32]:
    """What these pictures are decoded from."""
    return np.asarray(run_diffusers(their_pipeline(), seeds, output="latent").numpy())


def rate(make: Callable[[Seeds], object], seeds: Seeds) -> float:
    """Pictures per second of one call."""
    started = time.perf_counter()
    make(seeds)
    return len(seeds) / (time.perf_counter() - started)


def error(we: Executor, they: Executor, batch: int) -> Row:
    """How far final latents are apart."""
    seeds = tuple(range(batch))
    got, wanted = we.submit(ours, seeds, "latents").result().latents, they.submit(their_latents, seeds).result()
    distance = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    return Row(who="both", what=f"relative latent error, batch {batch}", unit="of max", samples=(distance,))


def measure_batch(we: Executor, they: Executor, batch: int, runs: int) -> list[Row]:
    """Both sides' rates, in turns with new seeds each time; then their ratio and their difference."""
    same, pairs = error(we, they, batch), []
    for run in range(1 + runs):
        seeds = tuple(range(run * batch, (run + 1) * batch))
        pairs.append((we.submit(rate, ours, seeds).result(), they.submit(rate, theirs, seeds).result()))
    what = f"pictures per second, batch {batch}"
    our_row, their_row = (
        Row(who=who, what=what, unit="1/s", samples=samples[1:])  # the first warms up
        for who, samples in zip(("sdxl-trt", "diffusers"), zip(*pairs, strict=True), strict=True)
    )
    return [our_row, their_row, ratio(our_row, their_row, what), same]


def measure(runs: int) -> Report:
    """Demo pictures per second, beside diffusers eager."""
    demo_bundle()  # before anything is timed
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh) as we, ProcessPoolExecutor(1, fresh) as they:
        batches = [measure_batch(we, they, batch, runs) for batch in BATCHES]
    return Report(
        title="Pictures per second of the demo model on the CPU, float32",
        settings={"size": f"{EDGE}×{EDGE}", "steps": STEPS, "guidance": GUIDANCE, "threads": usable_cpus()},
        distributions=("sdxl-trt", "onnxruntime", "numpy", *PACKAGES),
        rows=[row for rows in batches for row in rows],
        aims=[Aim(row=rows[2], bound=AIM_RATIO, at_most=False) for rows in batches],
    )


if __name__ == "__main__":
    command("pictures", measure, runs=9)()
