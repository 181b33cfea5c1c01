"""What was served, in figures: latency, throughput, fairness and occupancy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.serving.load import Arrival, Asked

PERCENTILES: Final = (50, 95, 99)
KINDS: Final = ("short", "all")
RATE, FAIRNESS, OCCUPANCY = "pictures per second", "fairness", "rows per step"

Alone = Callable[[Asked], float]
"""Seconds that a request takes where nobody else asks, one at a time."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a way made of a run of requests."""

    arrivals: Sequence[Arrival]
    finished: Sequence[float]
    """When each was answered."""
    steps: int
    rows: int
    """The UNet's, of all steps together."""

    @property
    def latencies(self) -> list[float]:
        """Seconds from each request to its answer."""
        return [end - each.at for each, end in zip(self.arrivals, self.finished, strict=True)]

    def slowdowns(self, alone: Alone) -> dict[str, float]:
        """By client: how many times as long as alone its requests took, on average."""
        found = defaultdict[str, list[float]](list)
        for each, latency in zip(self.arrivals, self.latencies, strict=True):
            found[each.client].append(latency / alone(each.asked))
        return {client: float(np.mean(values)) for client, values in sorted(found.items())}


def latency(percentile: int, kind: str) -> str:
    """What a percentile of latencies is called."""
    return f"p{percentile} of {kind} requests"


def figures(served: Served, alone: Alone) -> dict[str, float]:
    """All figures by name; latencies in seconds, and the rate until the last request was answered."""
    short = [took for each, took in zip(served.arrivals, served.latencies, strict=True) if each.asked.short]
    took = {
        latency(percent, kind): float(np.percentile(values, percent))
        for kind, values in zip(KINDS, (short, served.latencies), strict=True)
        for percent in PERCENTILES
    }
    return took | {
        RATE: len(served.arrivals) / max(served.finished),
        FAIRNESS: jain(served.slowdowns(alone).values()),
        OCCUPANCY: served.rows / served.steps,
    }


def jain(shares: Iterable[float]) -> float:
    """Jain's index (DEC-TR-301, 1984): 1 where all have the same, 1/n where one of n has everything."""
    values = np.array(list(shares))
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))
