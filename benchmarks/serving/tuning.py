"""Request-level batching at its best: the limit, the wait and the kind of batches that serve short requests soonest.

All combinations are simulated at 0.8 of the capacity; the best one is used at every load.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.serving.figures import figures, latency
from benchmarks.serving.load import Arrival, Asked, Size
from benchmarks.serving.simulate import Device, serve_batches
from benchmarks.serving.turns import Gather

WINDOWS: Final = (0.0, 0.25, 1.0)
"""In units of what a request takes alone, on average."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A device by its measured times."""

    slots: int
    steps: Mapping[Size, Mapping[int, float]]
    """Seconds of a step, by size and rows."""
    rest: Mapping[Size, float]
    """Seconds of all that a request takes beside its steps."""

    def step(self, rows: int, size: Size) -> float:
        """Of a step."""
        return self.steps[size][rows]

    def begin(self, asked: Asked) -> float:  # noqa: ARG002
        """Counted with what comes after the last step."""
        return 0.0

    def finish(self, size: Size) -> float:
        """Of what is not a step."""
        return self.rest[size]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What was found."""

    best: Gather
    tried: Mapping[str, float]
    """Seconds within which 95 % of short requests are answered, by the kind of batches."""

    def __str__(self) -> str:
        return (
            f"Request-level batching at its best of {len(self.tried)} kinds of batches, by simulation at 0.8×: "
            f"{_name(self.best)}."
        )


def tune(device: Device, arrivals: Sequence[Arrival], mean: float) -> Tuned:
    """Try all.

    Args:
        device: simulated.
        arrivals: that come at 0.8 of the capacity.
        mean: seconds that a request takes alone, on average.
    """
    limits = [slots for slots in (2, 4, 8, 16) if slots <= device.slots]
    kinds = [
        Gather(slots=slots, window=window * mean, apart=apart)
        for slots, window, apart in itertools.product(limits, WINDOWS, (False, True))
    ]
    short = latency(95, "short")
    tried = [figures(serve_batches(device, arrivals, kind), lambda _: mean)[short] for kind in kinds]
    best = kinds[tried.index(min(tried))]
    return Tuned(best=best, tried=dict(zip(map(_name, kinds), tried, strict=True)))


def _name(kind: Gather) -> str:
    mixed = "guided apart from unguided" if kind.apart else "guided beside unguided"
    return f"at most {kind.slots} requests, a wait of {kind.window:.2g} s, {mixed}"
