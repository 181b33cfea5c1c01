"""What engines do with memory while others run, decided before any of them is opened.

resident    all stay open
swap        one is open at a time (`sdxl_trt.runtime.swapping`)
stream      so too, and the weights of a step's engine pass through as much memory as is left, in every step: TensorRT
            alone can, with engines that were built for it, and steps are not recorded as CUDA graphs then

'auto' takes the first of them that fits a GPU's free memory, at the largest shapes that the engines take: that is what
they reserve. On the processor, memory is the system's to manage: all stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdxl_trt.bundle import EngineEntry, Target
from sdxl_trt.bundle.hosts import GRAPHS
from sdxl_trt.errors import UnknownName, UsageError
from sdxl_trt.policies import AUTO, POLICIES
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.cuda.arenas import SPARE
from sdxl_trt.runtime.device import Device
from sdxl_trt.spec import ModelSpec

Models = tuple[ModelSpec, ModelSpec | None]
"""The model, and the refiner where it is opened."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What was decided, and why."""

    policy: str
    """resident, swap or stream."""
    why: str
    free: int | None = None
    """Bytes of the GPU that were free; none where that was not asked."""
    peak: int | None = None
    """Bytes of engines at once, as estimated."""

    @property
    def swaps(self) -> bool:
        """One engine is open at a time."""
        return self.policy != "resident"

    @property
    def streams(self) -> bool:
        """Weights of steps pass through memory."""
        return self.policy == "stream"

    def __str__(self) -> str:
        """For people."""
        if self.peak is None or self.free is None:
            return f"{self.policy} ({self.why})"
        return f"{self.policy} ({self.why}; about {self.peak / 1e9:.2f} of {self.free / 1e9:.2f} GB that are free)"


def check_policy(name: str) -> None:
    """Refuse a name that is no policy's.

    Raises:
        UnknownName: it is none.
    """
    if name not in (AUTO, *POLICIES):
        raise UnknownName("memory policy", str(name), (AUTO, *POLICIES), fix="leave it out")


def decide(wanted: str, target: Target, models: Models, device: Device | None) -> Policy:
    """The policy to open a target with.

    Args:
        wanted: 'auto', or one of `POLICIES`.
        target: of the bundle.
        models: what is opened of it.
        device: where engines shall run; the processor when not given.

    Raises:
        UsageError: the target cannot stream weights.
        OutOfMemory: nothing fits, by estimate.
    """
    if wanted == "stream" and not _streams(target, models):
        raise _cannot_stream(target)
    if wanted != AUTO:
        return Policy(policy=wanted, why=_with_price(wanted, "asked for"))
    if not isinstance(device, CudaDevice):
        return Policy(policy="resident", why="on the processor")
    return fitting(target, models, device.memory().free)


def fitting(target: Target, models: Models, free: int) -> Policy:
    """The first policy that fits the free memory of a GPU, in bytes.

    Raises:
        OutOfMemory: nothing fits, by estimate.
    """
    from sdxl_trt.runtime.estimates import first_that_fits  # the catalogue of GPUs is not for the processor's start

    opened = tuple(zip(filter(None, models), _engines(target, models), strict=True))
    able = POLICIES if _streams(target, models) else POLICIES[:-1]
    memory = first_that_fits(target.profile, opened, free, able, reserve=SPARE)
    if memory is None:
        return Policy(policy="resident", why="the bundle does not say what its engines take")
    return Policy(policy=memory.policy, why=_with_price(memory.policy, "fits"), free=free, peak=memory.peak)


def _with_price(policy: str, why: str) -> str:
    return f"{why}; steps are not recorded as CUDA graphs" if policy == "stream" else why


def _engines(target: Target, models: Models) -> tuple[Mapping[str, EngineEntry], ...]:
    return (target.engines, target.refiner) if models[1] else (target.engines,)


def _streams(target: Target, models: Models) -> bool:
    """The weights of every step may be streamed."""
    return all("step" in engines and engines["step"].streams for engines in _engines(target, models))


def _cannot_stream(target: Target) -> UsageError:
    if target.flavour in GRAPHS:
        reason = "onnxruntime has no weight streaming (on the processor, the system maps large weights from their file)"
        return UsageError(
            "weights cannot be streamed here", got=f"{target.name}: {reason}", expected="TensorRT", fix="--memory swap"
        )
    return UsageError(
        "weights of these engines cannot be streamed",
        got=f"{target.name}, built without weight streaming",
        expected="a step engine that was built for it",
        fix="sdxl-trt build … --weight-streaming; or --memory swap",
    )
