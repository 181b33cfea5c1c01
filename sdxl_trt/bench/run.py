"""A whole bench: ours first, then its peers, which then have the machine and the GPU for themselves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdxl_trt.bench.machine import QUIET, Disturbance, installed, usable_cpus, versions
from sdxl_trt.bench.ours import Measured, measure
from sdxl_trt.bench.peers import PEERS, Job, measure_peer, without
from sdxl_trt.bench.report import Report
from sdxl_trt.bench.roofline import plot
from sdxl_trt.bench.rows import Figure
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.gpus import find_gpu
from sdxl_trt.paths import DEMO_MODELS
from sdxl_trt.progress import Progress
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.host import open_device
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.request import Request, Resolved
from sdxl_trt.spec import Profile
from sdxl_trt.spec.profile import format_size

BATCHES = (1, 2, 4)
"""Pictures at once where nothing is asked for, as far as a bundle goes."""
DISTRIBUTIONS = (
    "sdxl-trt", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13", "cuda-python",
    "torch", "diffusers", "transformers",
)  # fmt: skip

_NOT_QUIET = "others used the processor too, which slows one program down by far more than another"

OpenBundle = Callable[[Device], tuple[Loaded, Path]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured."""

    device: str
    request: Request
    """Of one picture or several; seeds are 0 and up."""
    batches: tuple[int, ...] | None
    repeats: int
    threads: int | None
    peers: bool
    checkpoint: Path | None
    """That the peers load; None: the demo model's, where it is what runs."""
    compiled: bool | None
    """Have the peer with torch.compile; None: on a GPU, where compiling is worth its minutes."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What is known once the engines are gone."""

    bundle: str
    model: str
    target: str
    scheduler: str
    gpu: dict[str, Any] | None
    torch_device: str
    measured: tuple[Measured, ...]

    @property
    def settings(self) -> Resolved:
        """Of the first batch; the others differ in their seeds."""
        return self.measured[0].settings


def bench(plan: Plan, open_bundle: OpenBundle, progress: Progress) -> Report:
    """Measure a bundle and its peers.

    Args:
        plan: what.
        open_bundle: opens it on a device.
        progress: told of every call that is timed.

    Raises:
        UsageError: something that cannot be asked of this bundle.
        NoTargetForHost, BundleError, FlavourUnavailable, OutOfMemory: it cannot be opened.
        RunError: an engine failed, or gave NaN or infinity.
    """
    disturbance = Disturbance()
    ours = _ours(plan, open_bundle, progress)
    figures = [figure for measured in ours.measured for figure in measured.figures]
    figures += _peers(plan, ours, progress)
    engines = [runs for measured in ours.measured for runs in measured.engines]
    no_roofline = _no_roofline(ours, counted=all(runs.intensity for runs in engines))
    return Report(
        settings=_settings(plan, ours),
        gpu=ours.gpu,
        versions=versions(installed(DISTRIBUTIONS)),
        figures=figures,
        engines=engines,
        roofline="" if no_roofline or ours.gpu is None else plot(find_gpu(ours.gpu["name"]), engines),
        no_roofline=no_roofline,
        notes=(disturbance.verdict(), "high percentiles of few runs are about the slowest of them"),
        not_comparable=_NOT_QUIET if ours.gpu is None and disturbance.share() > QUIET else "",
    )


def _ours(plan: Plan, open_bundle: OpenBundle, progress: Progress) -> Ours:
    """Our part, after which its memory is free again."""
    device = open_device(plan.device)
    try:
        return _measured(plan, device, open_bundle, progress)
    finally:
        gc.collect()
        device.close()


def _measured(plan: Plan, device: Device, open_bundle: OpenBundle, progress: Progress) -> Ours:
    loaded, bundle = open_bundle(device)
    batches = check_batches(plan.batches, loaded.target.profile)
    measured = measure(loaded, device, plan.request, batches, repeats=plan.repeats, progress=progress)
    gpu, ordinal = None, ""
    if isinstance(device, CudaDevice):
        gpu, ordinal = _describe(device), f"cuda:{device.ordinal}"
    return Ours(
        bundle=str(bundle),
        model=loaded.model.name,
        target=loaded.target.name,
        scheduler=str(loaded.model.scheduler["_class_name"]),
        gpu=gpu,
        torch_device=ordinal or "cpu",
        measured=tuple(measured),
    )


def _describe(device: CudaDevice) -> dict[str, Any]:
    memory = device.memory().total
    return {"name": device.name, "sm": device.sm, "driver_cuda": device.cuda_version, "memory_bytes": memory}


def check_batches(asked: tuple[int, ...] | None, profile: Profile) -> tuple[int, ...]:
    """The batch sizes to measure.

    Raises:
        UsageError: one that the engines were not built for.
    """
    most = profile.slots.max
    if asked and max(asked) > most:
        raise UsageError(
            "the engines were not built for this batch",
            got=f"--batch {max(asked)}",
            expected=f"up to {most} pictures at once",
            fix=f"--batch {most}; or build the bundle again with --batch {max(asked)}",
        )
    return asked or tuple(batch for batch in BATCHES if batch <= most)


def _peers(plan: Plan, ours: Ours, progress: Progress) -> Iterator[Figure]:
    """Figures of each peer, or the reasons why there are none."""
    batches = tuple(len(measured.settings.seeds) for measured in ours.measured)
    checkpoint = plan.checkpoint or {path.name: path for path in DEMO_MODELS.values()}.get(ours.model)
    wanted = ours.gpu is not None if plan.compiled is None else plan.compiled
    for who, compiled in PEERS.items() if plan.peers else ():
        if checkpoint is None:
            yield from without(who, batches, "nothing says which checkpoint the bundle is of: --peer CHECKPOINT does")
        elif compiled and not wanted:
            yield from without(who, batches, "left out: compiling for a processor takes minutes; --compile asks for it")
        else:
            progress(who, 0, 1)
            yield from measure_peer(who, _job(plan, ours, checkpoint, batches, compiled=compiled))
            progress(who, 1, 1)


def _job(plan: Plan, ours: Ours, checkpoint: Path, batches: tuple[int, ...], *, compiled: bool) -> Job:
    """The same pictures for a peer."""
    settings = ours.settings
    return Job(
        checkpoint=str(checkpoint),
        device=ours.torch_device,
        compiled=compiled,
        prompt=settings.prompt,
        size=settings.size,
        steps=settings.steps,
        guidance=settings.guidance if isinstance(settings.guidance, float) else settings.guidance[0],
        batches=batches,
        repeats=plan.repeats,
        threads=plan.threads or usable_cpus(),
    )


def _settings(plan: Plan, ours: Ours) -> dict[str, Any]:
    settings = ours.settings
    return {
        "model": ours.model,
        "bundle": ours.bundle,
        "target": ours.target,
        "device": plan.device,
        "size": format_size(settings.size),
        "steps": settings.steps,
        "evaluations": ours.measured[0].evaluations,
        "guidance": settings.guidance,
        "sampler": settings.sampler or ours.scheduler,
        "prompt": settings.prompt,
        "repeats": plan.repeats,
        "threads": plan.threads or usable_cpus(),
    }


def _no_roofline(ours: Ours, *, counted: bool) -> str:
    """Why there is none; empty text where there is."""
    if ours.gpu is None:
        return "the catalogue has the rates of GPUs, and engines ran on the processor"
    try:
        find_gpu(ours.gpu["name"])
    except (UnknownName, UsageError) as error:
        return f"the catalogue has no rates of {ours.gpu['name']}: {error.what}"
    return "" if counted else f"{ours.bundle} does not say what its engines compute: build it again with this version"
