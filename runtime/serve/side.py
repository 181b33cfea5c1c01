"""What runs beside the loops of a device: prompts and inputs before, decoding after.

On the processor that is a thread of its own. A GPU, and engines that take turns in its memory, are for one thread at a
time: there the loops' thread does it between two steps, while the GPU has the steps that it was given ahead.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

Work = Callable[[], None]
"""Must not raise."""

FINISHING, BEGINNING = range(2)
"""Kinds of work, in their order: what is decoded goes before what is to begin."""
SIDE_SECONDS = 0.1
"""Between two steps, nothing beside them is begun after so long."""


class Side:
    """Work in the order of its kind, then of its rank, then as it came. From any thread."""

    def __init__(self) -> None:
        self._heap = list[tuple[int, float, int, float, Work]]()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def push(self, kind: int, rank: float, work: Work) -> None:
        """Have something done."""
        with self._changed:
            heapq.heappush(self._heap, (kind, rank, next(self._numbers), time.monotonic(), work))
            self._changed.notify()

    @property
    def oldest(self) -> float | None:
        """When what waits longest came, by `time.monotonic`; None: nothing waits."""
        with self._changed:
            return min((came for _, _, _, came, _ in self._heap), default=None)

    def run_one(self) -> bool:
        """Do what is first. Returns whether there was anything."""
        with self._changed:
            if not self._heap:
                return False
            work = heapq.heappop(self._heap)[-1]
        work()
        return True

    def run(self, seconds: float, now: Callable[[], float] = time.monotonic) -> bool:
        """Do what there is, in its order, and begin nothing after so many seconds. Returns whether there was anything.

        Args:
            seconds: at least one thing is done.
            now: the time by some clock.
        """
        until, ran = now() + seconds, False
        while self.run_one():
            ran = True
            if now() >= until:
                break
        return ran

    def start(self, name: str) -> None:
        """Do everything from now on, in a thread."""
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Do no more; waits for what is being done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._heap or self._closed)
                if self._closed:
                    return
            self.run_one()
