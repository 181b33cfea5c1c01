"""Each engine by itself: recorded, and run again and again with nothing in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.device import Device
from sdxl_trt.runtime.engine import Engine, allocate, record
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.loop import row_bucket
from sdxl_trt.runtime.request import Resolved
from sdxl_trt.spec import LATENT_SCALE, TensorSpec

ROWS = 1
"""Prompts in a call of a text encoder."""


@dataclass(frozen=True, kw_only=True)
class EngineRuns:
    """Runs of one engine at one shape."""

    name: str
    batch: int
    axes: dict[str, int]
    seconds: tuple[float, ...]
    """From the end of each run to the end of the next."""
    operations: float | None
    """Of one run; None where the bundle does not say."""
    bytes: float | None

    @property
    def tflops(self) -> float | None:
        """10^12 operations per second, at the median."""
        return None if self.operations is None else self.operations / median(self.seconds) / 1e12

    @property
    def intensity(self) -> float | None:
        """Operations per byte."""
        return self.operations / self.bytes if self.operations and self.bytes else None

    def as_json(self) -> dict[str, Any]:
        """Everything, and what follows from it."""
        return dataclasses.asdict(self) | {
            "ms": 1000 * median(self.seconds),
            "tflops": self.tflops,
            "operations_per_byte": self.intensity,
        }


def run_engines(
    loaded: Loaded, device: Device, settings: Resolved, repeats: int, *, names: Container[str]
) -> list[EngineRuns]:
    """Engines that a request runs, at the shapes that it runs them at.

    Args:
        loaded, device: the model, and where it runs.
        settings: of the request.
        repeats: runs of each.
        names: the engines that are asked for.
    """
    asked = [(engine, axes) for engine, axes in engines_at(loaded, device, settings) if engine.name in names]
    return [_run_engine(loaded, device, settings, engine, axes, repeats) for engine, axes in asked]


def _run_engine(
    loaded: Loaded, device: Device, settings: Resolved, engine: Engine, axes: dict[str, int], repeats: int
) -> EngineRuns:
    work = loaded.target.engines[engine.name].work
    return EngineRuns(
        name=engine.name,
        batch=len(settings.seeds),
        axes=axes,
        seconds=tuple(run_alone(engine, device, axes, repeats)),
        operations=work.operations(axes) if work else None,
        bytes=work.bytes(axes) if work else None,
    )


def engines_at(loaded: Loaded, device: Device, settings: Resolved) -> Iterator[tuple[Engine, dict[str, int]]]:
    """The engines that a request runs, in their order, and the lengths of their axes."""
    _, height, width = settings.latent_shape
    batch, most = len(settings.seeds), loaded.target.profile.slots.max
    slots = most if device.captures else batch
    rows = batch * (2 if settings.guided else 1)
    latent = {"height": height, "width": width}
    for encoder in loaded.encoders:
        yield encoder.engine, {"rows": ROWS}
    rows = row_bucket(rows, 2 * slots) if device.captures else rows
    tokens = loaded.model.text_encoders[0].tokens
    yield loaded.step, {"rows": rows, "slots": slots, "tokens": tokens, **latent}
    edge = (settings.vae_tile or max(settings.size)) // LATENT_SCALE  # of a whole tile, where there are tiles
    yield loaded.decoder, {"slots": 1, "height": min(height, edge), "width": min(width, edge)}


def run_alone(engine: Engine, device: Device, axes: Mapping[str, int], repeats: int) -> list[float]:
    """Seconds of each of so many runs in a row, after one that is not counted.

    Inputs are random, as a GPU draws less power, and so runs faster, on zeros. Indices are 0, which all shapes have.
    """
    stream, rng = device.stream(), np.random.default_rng(0)
    buffers = allocate(engine, device, axes)
    for name, tensor in engine.inputs.items():
        device.upload(buffers[name], _values(tensor, buffers[name].shape, rng), stream)
    work = record(engine.bind(buffers), device, stream)
    timer = device.timer(repeats + 1)
    work(stream)
    timer.mark(stream)
    for _ in range(repeats):
        work(stream)
        timer.mark(stream)
    return timer.intervals()


def _values(tensor: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    if tensor.dtype == "int32":
        return np.zeros(shape, np.int32)
    return rng.standard_normal(shape, np.float32).astype(tensor.dtype)
