"""One request in its stages, as `Pipeline.run` has them, timed without waiting more often than it does.

A timer of the device is marked between the stages and behind every step. On a GPU that is an event on the stream, so
that times are the GPU's own; a stage ends when its result is on the host. Nothing is synchronised for it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdxl_trt.progress import silent
from sdxl_trt.runtime.cuda import CudaDevice
from sdxl_trt.runtime.device import Buffer, Device, Stream, Timer
from sdxl_trt.runtime.engine import Binding, Engine
from sdxl_trt.runtime.ensemble import denoise
from sdxl_trt.runtime.expert import Expert
from sdxl_trt.runtime.loading import Loaded
from sdxl_trt.runtime.loop import Loop
from sdxl_trt.runtime.plans import Draft
from sdxl_trt.runtime.recent import Recent
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
    """What the host itself did in each of these: all but waiting for the GPU; on the processor, all but the engine."""

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
        step = _TimedEngine(loaded.step)
        if isinstance(device, CudaDevice):
            others = device.waited
        else:
            loaded, others = dataclasses.replace(loaded, step=step), lambda: step.seconds
        self._marks = _Marks(others)
        self._expert = Expert(loaded, device, make_loop=functools.partial(_MarkedLoop, self._marks))
        self._stream, self._request = device.stream(), request
        self.settings = resolve(request, loaded.model, loaded.target.profile)
        self.evaluations = self._expert.table(self.settings).evaluations
        self._marks.timer = device.timer(self.evaluations + _EDGES)

    def run(self) -> Call:
        """Make the pictures.

        Raises:
            RunError: an engine failed, or gave NaN or infinity.
        """
        expert, marks = self._expert, self._marks
        expert.condition.forget()  # each call is timed as the first of its prompt
        marks.host.clear()
        marks.timer.mark(self._stream)
        settings = resolve(self._request, expert.model, expert.profile)
        plan = Draft.make(expert, settings, expert.table(settings)).encode()
        marks.timer.mark(self._stream)
        latents = denoise([plan], None, silent, None)
        marks.timer.mark(self._stream)
        decode(expert.vae, latents, settings, silent)
        marks.timer.mark(self._stream)
        text, *loop, decoding = marks.timer.intervals()
        return Call(text=text, loop=sum(loop), decode=decoding, steps=tuple(loop[1:-1]), host=marks.between())


class _Marks:
    """Where they are made, and what the host did in between.

    Args:
        others: seconds so far that the host itself did nothing in.
    """

    timer: Timer

    def __init__(self, others: Callable[[], float]) -> None:
        self.host = list[tuple[float, float]]()
        """The host's own time, before and after each mark in the loop."""
        self._others = others

    def make(self, loop: Loop) -> None:
        """Mark a step that a loop was just given."""
        before = self._own_time()
        loop.mark(self.timer)
        self.host.append((before, self._own_time()))

    def between(self) -> tuple[float, ...]:
        """Seconds of the host's own, from each of these to the next."""
        return tuple(after[0] - before[1] for before, after in itertools.pairwise(self.host))

    def _own_time(self) -> float:
        return time.perf_counter() - self._others()


class _MarkedLoop(Loop):
    """A loop that marks each step as it puts it on the stream."""

    def __init__(self, marks: _Marks, engine: Engine, device: Device, **axes: int) -> None:
        super().__init__(engine, device, **axes)
        self._marks = marks

    def step(self) -> tuple[int, ...]:
        """One evaluation of every slot; as of `Loop`."""
        finished = super().step()
        self._marks.make(self)
        return finished


class _TimedEngine:
    """An engine that works while it is enqueued, and for how long."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.inputs, self.outputs = engine.name, engine.inputs, engine.outputs
        self.seconds = 0.0
        self._engine = engine

    def use(self, kept: Recent[Any, Any]) -> None:
        """As the engine's."""
        self._engine.use(kept)

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
