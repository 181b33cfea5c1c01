"""Time from operations and bytes: the least that a GPU's peaks allow, and what engines of its kind reached."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from sdxl_trt.gpus import Gpu
from sdxl_trt.planning.components import Component, Components
from sdxl_trt.planning.policies import Memory


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Part of the peak that published engines reached, and where that was published."""

    low: float
    high: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Time:
    """Seconds."""

    floor: float
    low: float
    high: float

    def __add__(self, other: Time) -> Time:
        return Time(floor=self.floor + other.floor, low=self.low + other.low, high=self.high + other.high)


GA_AD = Efficiency(
    low=0.40,
    high=0.65,
    source="A10, A100: NVIDIA's card of SDXL for TensorRT (hf.co/stabilityai/stable-diffusion-xl-1.0-tensorrt); A100: "
    "diffusers' documentation, torch.compile; RTX 3090, 4090, A800: OneDiff's README",
)
GH_GB = Efficiency(
    low=0.22,
    high=0.40,
    source="H100: NVIDIA's card of SDXL for TensorRT; H200, B200: MLPerf Inference v5.1, SDXL offline",
)
HOPPER = 90

SMALL_CALL = 3e12
"""Operations of a call below which a GPU is partly idle: 512² pictures one at a time, and text encoders."""
SMALL_LOW = 0.65
"""What that leaves of the lower efficiency: A100 and H100 in NVIDIA's card of SDXL-Turbo for TensorRT
(hf.co/stabilityai/sdxl-turbo-tensorrt)."""

BUS = (12e9, 25e9, 31.5e9)
"""Bytes per second from pinned host memory, assumed: what copies reach on PCIe 3.0 x16 and 4.0 x16, and the peak of the
latter."""
RECORDING = 0.01
"""Seconds to record an engine as a CUDA graph again, assumed: some thousand kernels, some microseconds each."""


def efficiency(gpu: Gpu) -> Efficiency:
    """By the only thing that published figures tell apart: data-centre GPUs from Hopper on, and all others."""
    return GH_GB if gpu.form == "datacenter" and gpu.sm >= HOPPER else GA_AD


def operations_per_second(gpu: Gpu, component: Component) -> float:
    """Dense peak for products of the component's dtype, which its bytes per parameter tell.

    fp16 accumulates in fp16, as the published engines do; fp32 runs as TF32, at half the rate of fp16 accumulated in
    fp32 (NVIDIA's architecture papers: A100 156 and 312, RTX 3090 35.6 and 71), or on Turing's cores, which have no
    TF32, at an eighth of fp16's.
    """
    bytes_each = round(component.weights / component.work.parameters)
    if bytes_each == 1 and gpu.fp8_tflops:
        return gpu.fp8_tflops * 1e12
    if bytes_each <= 2:
        return gpu.fp16_fp16acc_tflops * 1e12
    return (gpu.fp16_fp32acc_tflops / 2 if gpu.sm >= 80 else gpu.fp16_fp16acc_tflops / 8) * 1e12


def floor(gpu: Gpu, component: Component) -> float:
    """Seconds of all calls if nothing but arithmetic or memory's bandwidth held them up, whichever is slower."""
    operations = component.work.operations(component.axes) / operations_per_second(gpu, component)
    return component.calls * max(operations, component.work.bytes(component.axes) / (gpu.bandwidth_gb_s * 1e9))


def time(gpu: Gpu, component: Component) -> Time:
    """Of all calls."""
    least, reached = floor(gpu, component), efficiency(gpu)
    small = component.work.operations(component.axes) < SMALL_CALL
    return Time(floor=least, low=least / reached.high, high=least / (reached.low * (SMALL_LOW if small else 1)))


def total(gpu: Gpu, components: Components, memory: Memory) -> Time:
    """Of all pictures of a request, with what a policy adds.

    What the host does between engines is taken as hidden.
    """
    swapping = loading(gpu, components, memory) + preparing(gpu, components, memory)
    return sum((time(gpu, each) for each in components), start=swapping)


def loading(gpu: Gpu, components: Components, memory: Memory) -> Time:
    """Of weights that a policy brings to the card. In the floor, streamed ones come behind the steps."""
    slow, fast, peak = BUS
    loop = sum(floor(gpu, each) for each in components if each.streams)
    moved = memory.loaded + memory.streamed
    return Time(
        floor=memory.loaded / peak + max(0.0, memory.streamed / peak - loop), low=moved / fast, high=moved / slow
    )


def preparing(gpu: Gpu, components: Components, memory: Memory) -> Time:
    """Of engines that were loaded: each runs once to be bound (`runtime/trt/binding.py`), and then is recorded."""
    if memory.policy == "resident":
        return Time(floor=0.0, low=0.0, high=0.0)
    used = [each for each in components if each.calls]
    recorded = RECORDING * sum(not (each.streams and memory.policy == "stream") for each in used)
    once = (time(gpu, dataclasses.replace(each, calls=1)) for each in used)
    return sum(once, start=Time(floor=recorded, low=recorded, high=recorded))
