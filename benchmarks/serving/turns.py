"""One batch after the other: one request at a time, and request-level batching, on a real device or a simulated one.

A batch is begun with the oldest request that waits. It takes others of the same size, oldest first, until it is full;
where it is not, it waits for more until its oldest request has waited for a window. It is padded: it has as many steps
as its longest request, and those that are finished before keep their rows. None of them is answered before its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from benchmarks.serving.clock import Clock
from benchmarks.serving.figures import Served
from benchmarks.serving.load import Arrival, Asked


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a batch came to."""

    finished: Sequence[float]
    """When each request was answered."""
    steps: int
    rows: int
    """Of all steps together, padding counted."""


Make = Callable[[Sequence[Arrival]], Made]
"""Makes a batch."""


@dataclass(frozen=True, kw_only=True)
class Gather:
    """Which requests make the next batch."""

    slots: int
    """Requests in a batch at most."""
    window: float = 0.0
    """Seconds that the oldest waits for others, where the batch is not full."""
    apart: bool = False
    """Requests with guidance and without are in batches of their own: the one are long and the others short."""

    def __call__(self, waiting: Sequence[Arrival], now: float) -> list[Arrival]:
        """The next batch; nothing: wait.

        Args:
            waiting: oldest first.
            now: the time.
        """
        if not waiting:
            return []
        kind = self._kind(waiting[0].asked)
        alike = [each for each in waiting if self._kind(each.asked) == kind][: self.slots]
        return alike if len(alike) == self.slots or now >= self.until(waiting) else []

    def until(self, waiting: Sequence[Arrival]) -> float:
        """When a batch is made of those that wait, full or not."""
        return waiting[0].at + self.window

    def _kind(self, asked: Asked) -> Hashable:
        return asked.size, asked.guided and self.apart


def serve_in_turns(arrivals: Sequence[Arrival], gather: Gather, make: Make, clock: Clock) -> Served:
    """Serve all of them.

    Args:
        arrivals: in the order of their times.
        gather: makes batches.
        make: has a batch's pictures made.
        clock: that arrivals are by.
    """
    upcoming, waiting = deque(arrivals), list[Arrival]()
    finished, steps, rows = dict[int, float](), 0, 0
    while upcoming or waiting:
        while upcoming and upcoming[0].at <= clock.now():
            waiting.append(upcoming.popleft())
        batch = gather(waiting, clock.now())
        if batch:
            made = make(batch)
            finished |= {each.number: moment for each, moment in zip(batch, made.finished, strict=True)}
            waiting = [each for each in waiting if each.number not in finished]
            steps, rows = steps + made.steps, rows + made.rows
        else:
            moments = ([upcoming[0].at] if upcoming else []) + ([gather.until(waiting)] if waiting else [])
            clock.wait_until(min(moments))
    return Served(arrivals=arrivals, finished=[finished[each.number] for each in arrivals], steps=steps, rows=rows)
