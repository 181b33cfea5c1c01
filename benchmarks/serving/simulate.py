"""The three ways on a simulated device, where nothing takes time but what its estimate says.

Step-level batching is the service's own: its scheduler chooses steps, and its order of what comes beside them holds.
What is imitated is the loop of a GPU's worker: a step, then what is to be begun or finished.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from benchmarks.serving.clock import Simulated
from benchmarks.serving.figures import Served
from benchmarks.serving.load import Arrival, Asked, Size
from benchmarks.serving.turns import Gather, Made, serve_in_turns
from sdxl_trt.runtime.serve.scheduler import PATIENCE, Batch, Costs, Room, choose
from sdxl_trt.runtime.serve.side import BEGINNING, FINISHING, SIDE_SECONDS, Side

MOVING: Final = 2e-3
"""Seconds to park a picture or to bring it back, assumed: the steps so far are waited for, and 1.5 MB are copied."""


class Device(Protocol):
    """Seconds that a device takes."""

    @property
    def slots(self) -> int:
        """Pictures of a step at most."""

    def step(self, rows: int, size: Size) -> float:
        """Of a step."""

    def begin(self, asked: Asked) -> float:
        """Of what comes before a request's first step."""

    def finish(self, size: Size) -> float:
        """Of what comes after its last."""


def serve_batches(device: Device, arrivals: Sequence[Arrival], gather: Gather) -> Served:
    """Serve all of them, one batch after the other; batches of one are one request at a time."""
    clock = Simulated()

    def make(batch: Sequence[Arrival]) -> Made:
        size, steps = batch[0].asked.size, max(each.asked.steps for each in batch)
        rows = sum(each.asked.rows for each in batch)
        clock.spend(sum(device.begin(each.asked) for each in batch) + steps * device.step(rows, size))
        finished = []
        for _ in batch:
            clock.spend(device.finish(size))
            finished.append(clock.now())
        return Made(finished=finished, steps=steps, rows=steps * rows)

    return serve_in_turns(arrivals, gather, make, clock)


@dataclass(eq=False)
class Work:
    """A request on its way: what the scheduler sees as a job, and as its only picture."""

    arrival: Arrival
    done: int = 0
    """Steps."""
    begun: bool = False
    seated: bool = False
    priority: int = 0
    behind: float = 0.0
    """The scheduler's own note."""

    @property
    def client(self) -> str:
        """Who asked."""
        return self.arrival.client

    @property
    def arrived(self) -> float:
        """When."""
        return self.arrival.at

    @property
    def pictures(self) -> list[Work]:
        """Itself, until it is denoised."""
        return [] if self.denoised else [self]

    @property
    def denoised(self) -> bool:
        """No step is left."""
        return self.done == self.arrival.asked.steps

    @property
    def group(self) -> Size | None:
        """Its size, once it may step."""
        return self.arrival.asked.size if self.begun else None

    @property
    def rows(self) -> int:
        """Of its next step."""
        return self.arrival.asked.rows

    def left(self, costs: Costs) -> float:
        """Seconds that its rows take that are not done yet."""
        size = self.arrival.asked.size
        return (self.arrival.asked.steps - self.done) * self.rows * costs.of(size, _pixels(size))


class StepLevel:
    """The service, for one run.

    Args:
        device: simulated.
        sizes: that it is warmed up for.
    """

    def __init__(self, device: Device, sizes: Sequence[Size]) -> None:
        self._device, self._clock, self._side = device, Simulated(), Side()
        self._room, self._costs = Room(slots=device.slots, rows=2 * device.slots), Costs()
        self._works, self._finished = list[Work](), dict[int, float]()
        self._steps = self._rows = 0
        for size in sizes:
            self._warm_up(size)

    def _warm_up(self, size: Size) -> None:
        """As `Stepper.warm_up`."""
        times = {rows: self._device.step(rows, size) for rows in range(1, self._room.rows + 1)}
        for rows, seconds in times.items():
            self._costs.learn(size, _pixels(size), rows, seconds)
        self._room.learn(size, times)

    def __call__(self, arrivals: Sequence[Arrival]) -> Served:
        """Serve all of them."""
        upcoming = deque(arrivals)
        while upcoming or self._works:
            while upcoming and upcoming[0].at <= self._clock.now():
                self._add(Work(upcoming.popleft()))
            batch = choose(self._works, self._costs, self._room)
            if batch:
                self._step(batch)
            if not self._side.run(SIDE_SECONDS, self._clock.now) and not batch:
                self._clock.wait_until(upcoming[0].at)
        finished = [self._finished[each.number] for each in arrivals]
        return Served(arrivals=arrivals, finished=finished, steps=self._steps, rows=self._rows)

    def _add(self, work: Work) -> None:
        def begin() -> None:
            self._clock.spend(self._device.begin(work.arrival.asked))
            work.begun = True

        self._works.append(work)
        self._side.push(BEGINNING, work.left(self._costs) + work.arrived / PATIENCE, begin)

    def _step(self, batch: Batch) -> None:
        size, rows = cast(Size, batch.group), batch.rows
        pictures = cast(Sequence[Work], batch.pictures)
        for work in self._works:
            if work.group == size and not work.denoised and work.seated != (work in pictures):
                self._clock.spend(MOVING)
                work.seated = not work.seated
        seconds = self._device.step(rows, size)
        self._clock.spend(seconds)
        self._costs.learn(size, _pixels(size), rows, seconds)
        self._steps, self._rows = self._steps + 1, self._rows + rows
        for work in pictures:
            work.done += 1
            if work.denoised:
                self._finish(work)

    def _finish(self, work: Work) -> None:
        def finish() -> None:
            self._clock.spend(self._device.finish(work.arrival.asked.size))
            self._finished[work.arrival.number] = self._clock.now()
            self._works.remove(work)

        self._side.push(FINISHING, 0.0, finish)


def _pixels(size: Size) -> int:
    """Of latents."""
    return size[0] * size[1] // 64
