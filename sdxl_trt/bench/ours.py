"""The figures of a bundle on this host."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sdxl_trt.bench.energy import EnergyMeter
from sdxl_trt.bench.engines import EngineRuns, run_engines
from sdxl_trt.bench.machine import peak_memory
from sdxl_trt.bench.rows import Figure
from sdxl_trt.bench.stages import Call, Stages
from sdxl_trt.progress import Progress
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.request import Request, Resolved

WHO = "sdxl-trt"
_NO_STEP = "one evaluation: there is no step from one to the next"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was found at one batch size."""

    settings: Resolved
    evaluations: int
    """Of the network, for each picture."""
    figures: Sequence[Figure]
    engines: Sequence[EngineRuns]


def measure(
    loaded: Loaded, device: Device, request: Request, batches: Sequence[int], *, repeats: int, progress: Progress
) -> Iterator[Measured]:
    """Each batch size in turn: a first call, as many as are counted, then each engine by itself.

    Raises:
        UsageError: the request cannot be done.
        RunError: an engine failed, or gave NaN or infinity.
        OutOfMemory: the GPU has too little memory.
    """
    meter, names = EnergyMeter(device), set(loaded.target.engines)
    for batch in batches:
        asked = dataclasses.replace(request, seed=tuple(range(batch)))
        yield _measure_batch(loaded, device, asked, meter, repeats, progress, names)
        names = {loaded.step.name}  # the others do the same work whatever the batch


def _measure_batch(
    loaded: Loaded,
    device: Device,
    request: Request,
    meter: EnergyMeter,
    repeats: int,
    progress: Progress,
    names: Container[str],
) -> Measured:
    stages = Stages(loaded, device, request)
    batch = len(stages.settings.seeds)
    stage = f"{WHO}, batch {batch}"
    progress(stage, 0, repeats + 1)
    started = time.perf_counter()
    stages.run()
    first = Figure(who=WHO, what="first call", batch=batch, unit="ms", samples=(1e3 * (time.perf_counter() - started),))
    progress(stage, 1, repeats + 1)
    calls, before = list[Call](), meter.read()
    for done in range(repeats):
        calls.append(stages.run())
        progress(stage, done + 2, repeats + 1)
    energy = _energy(before, meter, repeats, batch)
    figures = [first, *_times(calls, batch), energy, *_memory(device, batch)]
    engines = run_engines(loaded, device, stages.settings, repeats, names=names)
    (step,) = (runs for runs in engines if runs.name == loaded.step.name)
    figures.append(_over_engine(calls, step, stages.evaluations))
    return Measured(settings=stages.settings, evaluations=stages.evaluations, figures=figures, engines=engines)


def _energy(before: float | None, meter: EnergyMeter, repeats: int, batch: int) -> Figure:
    """The mean of all calls: the counter is read once in some ten milliseconds."""
    after = meter.read()
    samples = () if before is None or after is None else ((after - before) / (repeats * batch),)
    return Figure(who=WHO, what="energy per picture", batch=batch, unit="J", samples=samples, reason=meter.reason)


def _over_engine(calls: Sequence[Call], step: EngineRuns, evaluations: int) -> Figure:
    alone = evaluations * median(step.seconds)
    samples = tuple(call.loop / alone for call in calls)
    return Figure(who=WHO, what="loop ÷ its engine alone", batch=step.batch, unit="×", samples=samples)


def _times(calls: Sequence[Call], batch: int) -> Iterator[Figure]:
    def figure(what: str, unit: str, values: Iterator[float], reason: str = "") -> Figure:
        return Figure(who=WHO, what=what, batch=batch, unit=unit, samples=tuple(values), reason=reason)

    no_step = "" if calls[0].steps else _NO_STEP
    yield figure("text", "ms", (1e3 * call.text for call in calls))
    yield figure("loop", "ms", (1e3 * call.loop for call in calls))
    yield figure("VAE decode", "ms", (1e3 * call.decode for call in calls))
    yield figure("whole picture", "ms", (1e3 * call.total for call in calls))
    yield figure("step", "ms", (1e3 * step for call in calls for step in call.steps), no_step)
    yield figure("host per step", "µs", (1e6 * step for call in calls for step in call.host), no_step)
    yield figure("throughput", "1/s", (batch / call.total for call in calls))


def _memory(device: Device, batch: int) -> Iterator[Figure]:
    """Peaks so far, larger batches coming last. An engine library's weights are in what is used on the whole GPU."""
    use = device.memory() if isinstance(device, CudaDevice) else None
    figures: dict[str, int | None] = {
        "host memory, peak": peak_memory(),
        "GPU memory allocated, peak": use.peak if use else None,
        "GPU memory used by all": use.total - use.free if use else None,
    }
    for what, value in figures.items():
        samples, reason = ((), "engines ran on the processor") if value is None else ((value / 1e6,), "")
        yield Figure(who=WHO, what=what, batch=batch, unit="MB", samples=samples, reason=reason)
