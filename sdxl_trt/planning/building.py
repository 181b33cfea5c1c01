"""What a build takes, scaled by weights from the one that was measured: SDXL base, TensorRT for RTX, two CPU cores.

The figures are those of benchmarks/results/fullsize_build.json and fullsize_export.json.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdxl_trt.planning.components import Components

MEASURED_WEIGHTS = 6_902_608_292
"""Bytes of weights of SDXL base's engines, the VAE's in float32."""
BUILD_SECONDS = 122.3 / MEASURED_WEIGHTS
EXPORT_SECONDS = 75.1 / MEASURED_WEIGHTS
PLAN_BYTES = 6_972_846_236 / MEASURED_WEIGHTS
MEASURED_STEP = 5_134_927_368
"""Bytes of weights of the largest of these engines; they are built one after the other."""
MEMORY_BYTES = 10_645_229_568 / MEASURED_STEP

SOURCE = (
    "scaled by weights from SDXL base built for SM 86 with TensorRT for RTX on two cores "
    "(benchmarks/results/fullsize_build.json, fullsize_export.json)"
)


@dataclass(frozen=True, kw_only=True)
class Building:
    """Disk for a bundle, time and memory to make it."""

    disk: int
    """Bytes."""
    seconds: float | None
    """Of export and build on two cores; none where nothing is left to build, or for `tensorrt`, which times kernels on
    the GPU and was not measured."""
    memory: int | None
    """Bytes of anonymous memory at its peak; none likewise."""
    source: str


def building(components: Components, files: int, flavour: str) -> Building:
    """What is on disk in the end; and what it takes until then, of what is not built yet.

    Args:
        components: all that are needed.
        files: bytes that a bundle has beside its engines.
        flavour: that they would be built with.
    """
    left = [each.weights for each in components if each.plan is None]
    engines = sum(round(each.weights * PLAN_BYTES) if each.plan is None else each.plan for each in components)
    disk = engines + files
    if not left:
        return Building(disk=disk, seconds=None, memory=None, source="the bundle: nothing is left to build")
    if flavour == "tensorrt":
        source = "not known: tensorrt times kernels on the GPU itself; disk " + SOURCE
        return Building(disk=disk, seconds=None, memory=None, source=source)
    seconds = sum(left) * (EXPORT_SECONDS + BUILD_SECONDS)
    return Building(disk=disk, seconds=seconds, memory=round(max(left) * MEMORY_BYTES), source=SOURCE)
