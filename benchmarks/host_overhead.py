"""Host time per denoising step, outside the engine.

The real loop runs on the host device with a null step engine: one whose enqueue does nothing. One slot with guidance
(two rows), the demo checkpoint's Euler scheduler at 1,000 steps, SDXL's own widths; at SDXL's latent size and at the
demo's. Every run is one picture; rows are in µs.

step               mean over the steps but the first, without the copy of the new state over the old
join + first step  once per picture: uploads of noise, text and row maps
step, whole call   what one more step adds to `Pipeline.__call__`: beside the loop, a column of the table and progress
state copy         that copy: on a GPU the device's work, part of the recorded graph; here numpy's
noise              one draw for one picture: what a sampler that adds fresh noise pays per step on top

Beside it, in turns, diffusers' own pipeline with a null UNet (it returns a tensor that was made before), also with
guidance. Its step includes scaling, guidance and the Euler update, a dozen torch operations that here are inside the
engine; at the demo's size they are nearly all overhead. Whole calls are timed at two step counts, and the difference
is divided by that of the counts, so that tokenizing, text encoders and set-up cancel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer import GUIDANCE, PACKAGES, PROMPT, run_diffusers
from benchmarks.report import Aim, Report, command, ratio
from sdxl_trt.bench.machine import usable_cpus
from sdxl_trt.bench.peer import load_diffusers
from sdxl_trt.bench.rows import Row
from sdxl_trt.demo_bundle import demo_bundle
from sdxl_trt.paths import DEMO_CHECKPOINT
from sdxl_trt.runtime import Pipeline
from sdxl_trt.runtime.device import Buffer, HostDevice, Stream
from sdxl_trt.runtime.engine import AlwaysOpen
from sdxl_trt.runtime.loading import Loaded, load
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.noise import TorchGenerator
from sdxl_trt.runtime.samplers import make_table
from sdxl_trt.runtime.slots import Conditioning, SlotRequest
from sdxl_trt.spec import HISTORY, ModelSpec, Profile, graph_spec

STEPS = 1000
FEW, MANY = 20, 220
"""Step counts whose difference gives the cost of one step of a whole call."""
REPEATS = 100
"""Of copies and draws, within a run."""
TOKENS = 77
SDXL_EDGE, DEMO_EDGE = 1024, 128
AIM_MICROSECONDS = 100


class NullEngine(AlwaysOpen):
    """A step graph's signature, and a run that does nothing."""

    name = "step"
    capturable = True

    def __init__(self, model: ModelSpec) -> None:
        spec = graph_spec("step", model, "float32")
        self.inputs = {tensor.name: tensor for tensor in spec.inputs}
        self.outputs = {tensor.name: tensor for tensor in spec.outputs}

    def bind(self, buffers: Mapping[str, Buffer]) -> NullEngine:  # noqa: ARG002
        """Nothing to bind."""
        return self

    def enqueue(self, stream: Stream) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Nothing to release."""


class HostOnly(HostDevice):
    """The host without what is the device's work."""

    def copy(self, source: Buffer, target: Buffer, stream: Stream) -> None:
        """Leave the target as it is."""


def elapsed(work: Callable[[], object], times: int = 1) -> float:
    """Seconds that it takes, the mean of so many times."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def request(model: ModelSpec, edge: int) -> SlotRequest:
    """One picture with guidance; what it is conditioned on is of the right shapes, and zero."""
    source = TorchGenerator(0)
    prompt, negative = (
        Conditioning(
            text=np.zeros((TOKENS, model.unet.text), np.float32),
            pooled=np.zeros(model.unet.pooled, np.float32),
            time_ids=np.zeros(model.unet.time_ids, np.float32),
        )
        for _ in range(2)
    )
    return SlotRequest(
        table=make_table(model.scheduler, STEPS),
        noise=source.normal((4, edge // 8, edge // 8)),
        source=source,
        prompt=prompt,
        negative=negative,
        guidance=GUIDANCE,
    )


def time_loop(model: ModelSpec, edge: int) -> tuple[float, float]:
    """Seconds of joining with the first step, and of one later step."""
    loop = Loop(NullEngine(model), HostOnly(), slots=1, height=edge // 8, width=edge // 8, tokens=TOKENS)
    asked = request(model, edge)
    started = time.perf_counter()
    loop.join(asked)
    loop.step()
    joined = time.perf_counter()
    while not loop.step():
        pass
    return joined - started, (time.perf_counter() - joined) / (STEPS - 1)


def copy_of_state(edge: int) -> Callable[[], object]:
    """The copy of the new state over the old."""
    device = HostDevice()
    shape = (1, HISTORY, 4, edge // 8, edge // 8)
    new, old = device.allocate(shape, np.float32), device.allocate(shape, np.float32)
    return lambda: device.copy(new, old, None)


def per_step(call: Callable[[int], object]) -> float:
    """Seconds that one more step adds to a call."""
    few = elapsed(lambda: call(FEW))
    return (elapsed(lambda: call(MANY)) - few) / (MANY - FEW)


def our_call(bundle: Path, edge: int) -> Callable[[int], object]:
    """`Pipeline.__call__` with the null engine, by the number of steps."""
    loaded: Loaded = load(bundle)
    profile = Profile.make(smallest=(edge, edge), best=(edge, edge), largest=(edge, edge), batch=1)
    null = replace(loaded, step=NullEngine(loaded.model), target=replace(loaded.target, profile=profile))
    pipeline = Pipeline(null, HostOnly())
    return lambda steps: pipeline(PROMPT, steps=steps, guidance=GUIDANCE, seed=0, size=(edge, edge), output="latents")


def their_call(pipeline: Any, edge: int) -> Callable[[int], object]:
    """diffusers' pipeline with a null UNet, by the number of steps."""
    import torch

    output = torch.zeros(2, 4, edge // 8, edge // 8)

    def call(steps: int) -> None:
        pipeline.unet.forward = lambda *_, **__: (output,)  # the module and its config stay what they are
        run_diffusers(pipeline, (0,), steps=steps, edge=edge, output="latent")

    return call


def timers(model: ModelSpec, bundle: Path, pipeline: Any, edge: int) -> dict[tuple[str, str], Callable[[], float]]:
    """What is timed at one size, each giving the seconds of one run, by who and what."""
    import torch

    ours, theirs = our_call(bundle, edge), their_call(pipeline, edge)
    copy, shape = copy_of_state(edge), (4, edge // 8, edge // 8)
    source, generator = TorchGenerator(0), torch.Generator("cpu").manual_seed(0)
    return {
        ("sdxl-trt", "step"): lambda: time_loop(model, edge)[1],
        ("sdxl-trt", "step, whole call"): lambda: per_step(ours),
        ("diffusers", "step, whole call"): lambda: per_step(theirs),
        ("sdxl-trt", "join + first step"): lambda: time_loop(model, edge)[0],
        ("sdxl-trt", "state copy"): lambda: elapsed(copy, REPEATS),
        ("sdxl-trt", "noise"): lambda: elapsed(lambda: source.normal(shape), REPEATS),
        ("torch", "noise"): lambda: elapsed(lambda: torch.randn(1, *shape, generator=generator), REPEATS),
    }


def measure_size(model: ModelSpec, bundle: Path, pipeline: Any, edge: int, runs: int) -> list[Row]:
    """The rows of one size: everything once per run, in turns, after a run that is not counted."""
    works = timers(model, bundle, pipeline, edge)
    samples: dict[tuple[str, str], list[float]] = {name: [] for name in works}
    for run in range(1 + runs):
        for name, work in works.items():
            seconds = work()
            if run:
                samples[name].append(seconds * 1e6)
    size = f"{edge // 8}×{edge // 8}"
    return [
        Row(who=who, what=f"{what}, latent {size}", unit="µs", samples=tuple(samples[who, what]))
        for who, what in samples
    ]


def measure(runs: int) -> Report:
    """Host time per step outside the engine, beside diffusers' loop."""
    threads, bundle = usable_cpus(), demo_bundle()
    demo = load(bundle).model
    model = replace(demo, unet=replace(demo.unet, text=2048, pooled=1280))
    pipeline = load_diffusers(DEMO_CHECKPOINT, threads)
    large, small = (measure_size(model, bundle, pipeline, edge, runs) for edge in (SDXL_EDGE, DEMO_EDGE))
    ratios = [ratio(rows[2], rows[1], rows[1].what) for rows in (large, small)]
    return Report(
        title="Host time per denoising step with a null engine",
        settings={"slots": 1, "rows": 2, "steps": STEPS, "whole calls": f"{MANY} − {FEW} steps", "threads": threads},
        distributions=("sdxl-trt", "numpy", *PACKAGES),
        rows=[*large, *small, *ratios],
        notes=("not measured: what a GPU's driver takes to queue the copies and the graph of a step",),
        aims=[Aim(row=rows[0], bound=AIM_MICROSECONDS, at_most=True) for rows in (large, small)],
    )


if __name__ == "__main__":
    command("host_overhead", measure, runs=15)()
