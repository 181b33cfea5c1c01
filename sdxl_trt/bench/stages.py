"""One request in its stages, as `Pipeline.run` has them, timed without waiting more often than it does.

A timer of the device is marked between the stages and behind every step. On a GPU that is an event on the stream, so
that times are the GPU's own; a stage ends when its result is on the host. Nothing is synchronised for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sdxl_trt.progress import silent
from sdxl_trt.runtime.device import Buffer, Device, HostDevice, Stream
from sdxl_trt.runtime.engine import Binding, Engine
from sdxl_trt.runtime.ensemble import denoise
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.plans import make_plan
from sdxl_trt.runtime.request import Request
from sdxl_trt.runtime.resolving import resolve
from sdxl_trt.runtime.results import decode

_EDGES = 4
"""Marks beside those of steps: the start, and the ends of the three stages."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, in seconds."""

    text: float
    """Settings, sampler, tokenizers and text encoders."""
    loop: float
    """Starting noise to final latents."""
    decode: float
    """Latents to pictures, one after the other."""
    steps: tuple[float, ...]
    """From the end of each evaluation to the end of the next, all pictures in one; so one less than evaluations."""
    host: tuple[float, ...]
    """What the host itself did in each of these: beside a GPU its processor time, else all time but the engine's."""

    @property
    def total(self) -> float:
        """Prompt to pictures."""
        return self.text + self.loop + self.decode


class Stages:
    """A model on its device, for one request again and again.

    Args:
        loaded: the model.
        device: where it runs.
        request: of pictures that all are in the loop at once.

    Raises:
        UsageError: it cannot be done.
        SchedulerError: the checkpoint's scheduler has no table.
    """

    def __init__(self, loaded: Loaded, device: Device, request: Request) -> None:
        self._own_time: Callable[[], float] = time.thread_time
        if isinstance(device, HostDevice):
            step = _TimedEngine(loaded.step)
            loaded = dataclasses.replace(loaded, step=step)
            self._own_time = lambda: time.perf_counter() - step.seconds
        self._expert, self._stream, self._request = Expert(loaded, device), device.stream(), request
        self.settings = resolve(request, loaded.model, loaded.target.profile)
        self.evaluations = self._expert.table(self.settings).evaluations
        self._timer = device.timer(self.evaluations + _EDGES)

    def run(self) -> Call:
        """Make the pictures.

        Raises:
            RunError: an engine failed, or gave NaN or infinity.
        """
        expert, moments = self._expert, list[tuple[float, float]]()

        def note(loop: Loop) -> None:
            before = self._own_time()
            loop.mark(self._timer)
            moments.append((before, self._own_time()))

        self._edge()
        settings = resolve(self._request, expert.model, expert.profile)
        plan = make_plan(expert, settings, expert.table(settings))
        self._edge()
        expert.stepped = note
        latents = denoise([plan], None, silent, None)
        self._edge()
        decode(expert.vae, latents, settings, silent)
        self._edge()
        text, *loop, decoding = self._timer.intervals()
        host = tuple(after[0] - before[1] for before, after in itertools.pairwise(moments))
        return Call(text=text, loop=sum(loop), decode=decoding, steps=tuple(loop[1:-1]), host=host)

    def _edge(self) -> None:
        self._timer.mark(self._stream)


class _TimedEngine:
    """An engine that works while it is enqueued, and for how long."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.inputs, self.outputs = engine.name, engine.inputs, engine.outputs
        self.seconds = 0.0
        self._engine = engine

    def bind(self, buffers: Mapping[str, Buffer]) -> _TimedBinding:
        """As the engine's."""
        return _TimedBinding(self, self._engine.bind(buffers))

    def close(self) -> None:
        """As the engine's."""
        self._engine.close()


class _TimedBinding:
    def __init__(self, engine: _TimedEngine, binding: Binding) -> None:
        self._engine, self._binding = engine, binding
        self.capturable = binding.capturable

    def enqueue(self, stream: Stream) -> None:
        """Put one run on the stream, which is to do it."""
        started = time.perf_counter()
        self._binding.enqueue(stream)
        self._engine.seconds += time.perf_counter() - started
