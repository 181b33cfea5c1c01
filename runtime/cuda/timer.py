"""Moments of a GPU's work as its own clock has them."""

from __future__ import annotations

import itertools
from typing import cast

from sdxl_trt.runtime.cuda.context import Context, Owned
from sdxl_trt.runtime.device import Stream


class CudaTimer:
    """Timed events, made here and used again after each look at them.

    Args:
        context: of the GPU.
        marks: how many between two looks.
    """

    def __init__(self, context: Context, marks: int) -> None:
        self._context = context
        self._events = [context.event(timed=True) for _ in range(marks)]
        self._marked = list[Owned]()

    def mark(self, stream: Stream) -> None:
        """Have the moment noted when what is on a stream now is done. Neither waits nor allocates.

        Raises:
            IndexError: more marks than it is for.
        """
        event = self._events[len(self._marked)]
        self._context.enter()
        self._context.record(event, cast(Owned, stream).handle)
        self._marked.append(event)

    def intervals(self) -> list[float]:
        """Seconds from each mark to the next, of those since the last call; waits for them.

        Raises:
            GpuLost: the GPU failed.
        """
        marked, self._marked = self._marked, []
        self._context.enter()
        for event in marked:
            self._context.wait(event)
        return [self._context.seconds(before, after) for before, after in itertools.pairwise(marked)]
