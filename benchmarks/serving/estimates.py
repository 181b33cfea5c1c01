"""Seconds that GPUs take for SDXL, from operations and bytes: estimated, nothing was run.

A step takes what `sdxl-trt plan` says, the middle of its range: operations at the part of the peak that published
engines reached. To this comes what plans leave out, reading the weights once per step, so that rows that step together
gain something: 3 to 14 % have been published for batches at 1024². Text encoders and the VAE are as in plans.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from benchmarks.serving.load import Asked, Size
from sdxl_trt.gpus import Gpu, find_gpu
from sdxl_trt.planning import Request, published
from sdxl_trt.planning.components import Component, components
from sdxl_trt.planning.roofline import efficiency, operations_per_second, time
from sdxl_trt.runtime.loop import row_bucket

BASE: Final = "stabilityai/stable-diffusion-xl-base-1.0"
TEXT: Final = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one GPU.

    Args:
        gpu: of the catalogue.
        slots: that its engines are built for.
    """

    gpu: Gpu
    slots: int

    @classmethod
    def of(cls, name: str, slots: int) -> Estimate:
        """By the GPU's name."""
        return cls(gpu=find_gpu(name), slots=slots)

    def step(self, rows: int, size: Size) -> float:
        """Seconds of a step; as many rows are computed as the runtime has recorded a step for."""
        return _step(self.gpu, row_bucket(rows, 2 * self.slots), size)

    def begin(self, asked: Asked) -> float:
        """Seconds of encoding the prompts."""
        return sum(_seconds(self.gpu, _component(name, asked.rows, asked.size)) for name in TEXT)

    def finish(self, size: Size) -> float:
        """Seconds of decoding."""
        return _seconds(self.gpu, _component("vae_decoder", 1, size))

    def alone(self, asked: Asked) -> float:
        """Seconds of a request where nobody else asks."""
        return self.begin(asked) + asked.steps * self.step(asked.rows, asked.size) + self.finish(asked.size)

    def arithmetic(self, size: Size) -> dict[str, Any]:
        """How a step of two rows came about."""
        step = _component("step", 2, size)
        reached = efficiency(self.gpu)
        return {
            "operations of two rows": step.work.operations(step.axes),
            "peak, operations per second": operations_per_second(self.gpu, step),
            "reached, part of the peak": [reached.low, reached.high],
            "bytes of weights": step.weights,
            "bytes per second": self.gpu.bandwidth_gb_s * 1e9,
            "seconds of a step by its rows": {n: self.step(n, size) for n in (1, 2, 4, 8, 16) if n <= 2 * self.slots},
            "seconds of decoding": self.finish(size),
        }


@cache
def _step(gpu: Gpu, rows: int, size: Size) -> float:
    step = _component("step", rows, size)
    return _seconds(gpu, step) + step.weights / (gpu.bandwidth_gb_s * 1e9)


@cache
def _component(name: str, rows: int, size: Size) -> Component:
    """One call of an engine."""
    request = Request(size=size, steps=1, batch=1)
    found = next(each for each in components(published(BASE), request) if each.name == name)
    return dataclasses.replace(found, axes=request.axes(rows=rows, slots=1), calls=1)


def _seconds(gpu: Gpu, component: Component) -> float:
    """The middle of what a plan expects."""
    found = time(gpu, component)
    return (found.low + found.high) / 2
