"""What the page's arithmetic is, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from sdxl_trt.gpus import Gpu
from sdxl_trt.planning import RESERVE, Plan, gb
from sdxl_trt.planning.policies import LEAST_STREAMED
from sdxl_trt.planning.roofline import BUS, SMALL_CALL, SMALL_LOW, Efficiency
from sdxl_trt.report.markup import Html, section, tag


def sources(plan: Plan) -> Html:
    """A list."""
    return section("Arithmetic and sources", tag("ul", *(tag("li", each) for each in _sources(plan))))


def _sources(plan: Plan) -> Iterator[str]:
    yield (
        "Operations, bytes, weights and activations are counted in the model's exported graphs. Activations are the "
        "most bytes of tensors that exist while any convolution, product or attention runs, without what its kernel "
        "needs for itself."
    )
    yield "Peaks: resident is all weights and the largest activations; swap the largest engine with its activations."
    yield (
        f"Stream is as swap, with as much of the denoising engine's weights as there is room for, at least "
        f"{LEAST_STREAMED:.0%} of them (an assumption); the others pass through in every step."
    )
    yield f"{gb(RESERVE)} of the card are not for engines: an assumption."
    if plan.card.gpu and plan.efficiency:
        yield from _times(plan.card.gpu, plan.efficiency)
    yield f"Disk, build time and build memory: {plan.building.source}."


def _times(gpu: Gpu, reached: Efficiency) -> Iterator[str]:
    yield (
        "At least: calls × the longer of operations ÷ the peak for their dtype and bytes ÷ "
        f"{gpu.bandwidth_gb_s:g} GB/s. Peak for fp16: {gpu.fp16_fp16acc_tflops:g} TFLOP/s ({gpu.derivation})."
    )
    yield f"{gpu.name}: {gpu.source}." + (f" From memory: {', '.join(gpu.from_memory)}." if gpu.from_memory else "")
    yield f"Shortest and longest: {reached.high:.0%} and {reached.low:.0%} of the peak, as published: {reached.source}."
    yield (
        f"Calls of less than {SMALL_CALL / 1e12:g} TFLOP leave a GPU partly idle: their longest time is for "
        f"{SMALL_LOW:.0%} of that (A100 and H100 in NVIDIA's card of SDXL-Turbo for TensorRT)."
    )
    slow, fast, peak = (rate / 1e9 for rate in BUS)
    yield f"Weights come from host memory at {slow:g} to {fast:g} GB/s, {peak:g} at most: assumed for PCIe 3.0 and 4.0."
