"""The three ways beside one another: a line for each way at each load, and how many times the one is the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from benchmarks.report import Aim, ratio
from benchmarks.serving.figures import FAIRNESS, KINDS, OCCUPANCY, PERCENTILES, RATE, Alone, Served, figures, latency
from benchmarks.serving.load import GREEDY, Arrival, Asked, beside_greedy, poisson
from sdxl_trt.bench.rows import Row, number

WAYS: Final = ("one at a time", "request-level", "step-level")
LOADS: Final = (0.3, 0.5, 0.8, 1.0, 1.5)
"""In parts of the capacity: what one request at a time, back to back, comes to."""
SEED: Final = 1
FEWEST: Final = 12
"""Requests of a run, so that short ones are among them."""
AIMED: Final = 0.8
"""The load that aims are for."""
SOONER: Final = {"one at a time": 3.0, "request-level": 2.0}
"""How many times as soon 95 % of short requests should be answered."""
ALIKE: Final = 0.99
"""Rates that are taken as the same: the last requests of a run end when they end."""

HEADER: Final = f"{'load':14}{'way':15}{'short p50':>10}{'p95':>8}{'p99':>8}{'all p50':>9}{'p95':>8}{'p99':>8}" + (
    f"{'pict./s':>9}{'fair':>7}{'rows':>7}"
)
_WIDTHS: Final = (10, 8, 8, 9, 8, 8, 9, 7, 7)

Serve = Callable[[Sequence[Arrival]], Served]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The same requests, served in each way."""

    load: float
    greedy: bool
    """One of the clients asks for many pictures at once."""
    served: Mapping[str, Served]
    """By way."""
    alone: Alone

    @property
    def name(self) -> str:
        """The load."""
        return f"{self.load:g}×{', greedy' if self.greedy else ''}"

    def figures(self, way: str) -> dict[str, float]:
        """Of one way."""
        return figures(self.served[way], self.alone)

    def lines(self) -> Iterator[str]:
        """Of a table under `HEADER`."""
        order = [latency(percent, kind) for kind in KINDS for percent in PERCENTILES] + [RATE, FAIRNESS, OCCUPANCY]
        for way in self.served:
            found = self.figures(way)
            cells = [f"{number(found[name]):>{width}}" for name, width in zip(order, _WIDTHS, strict=True)]
            yield f"{self.name:14}{way:15}{''.join(cells)}"

    def row(self, way: str, what: str, unit: str) -> Row:
        """One figure."""
        return Row(who=way, what=f"{self.name}: {what}", unit=unit, samples=(self.figures(way)[what],))

    def slowdowns(self, way: str) -> list[Row]:
        """How many times as long as alone requests took on average: of each modest client, and of the greedy one."""
        found = self.served[way].slowdowns(self.alone)
        parts = {
            "modest": [value for client, value in found.items() if client != GREEDY],
            "greedy": [value for client, value in found.items() if client == GREEDY],
        }
        return [
            Row(who=way, what=f"{self.name}: slowdown, {kind}", unit="×", samples=tuple(values))
            for kind, values in parts.items()
            if values
        ]

    def as_json(self) -> dict[str, Any]:
        """All figures, by way."""
        ways = {way: self.figures(way) | {"slowdowns": self.served[way].slowdowns(self.alone)} for way in self.served}
        return {"load": self.load, "greedy": self.greedy, "ways": ways}


def run(
    load: float,
    arrivals: Sequence[Arrival],
    serves: Mapping[str, Serve],
    alone: Alone,
    tell: Callable[[str], object] = click.echo,
) -> Run:
    """Serve the same requests in each way, one way after the other.

    Args:
        load: in parts of the capacity.
        arrivals: the requests.
        serves: the ways.
        alone: seconds of a request alone.
        tell: is given the lines.
    """
    served = {way: serve(arrivals) for way, serve in serves.items()}
    found = Run(load=load, greedy=any(each.client == GREEDY for each in arrivals), served=served, alone=alone)
    for line in found.lines():
        tell(line)
    return found


def beside(each: Run) -> list[Row]:
    """Step-level batching beside each other way: how many times as soon it answers short requests, and its rate."""
    rows, short, last = list[Row](), latency(95, "short"), WAYS[-1]
    for way in WAYS[:-1]:
        rows += [
            ratio(each.row(way, short, "s"), each.row(last, short, "s"), f"{each.name}: {short}"),
            ratio(each.row(last, RATE, "1/s"), each.row(way, RATE, "1/s"), f"{each.name}: {RATE}"),
        ]
    return rows + [row for way in WAYS if each.greedy for row in each.slowdowns(way)]


def aims(each: Run) -> list[Aim]:
    """What of this should be reached at the load that aims are for."""
    bounds = [bound for sooner in SOONER.values() for bound in (sooner, ALIKE)]
    return [Aim(row=row, bound=bound, at_most=False) for row, bound in zip(beside(each), bounds, strict=True)]


def requests_at(load: float, cards: Sequence[Asked], capacity: float, seconds: float) -> list[Arrival]:
    """The requests of a run: those of the load that aims are for go on for twice as long."""
    count = round(load * capacity * seconds * (2 if load == AIMED else 1))
    return poisson(cards, load * capacity, max(count, FEWEST), seed=SEED)


def greedy_requests(cards: Sequence[Asked], capacity: float, seconds: float) -> list[Arrival]:
    """The requests of a run with a greedy client."""
    count = max(round(AIMED * capacity * seconds), FEWEST)
    return beside_greedy(cards, AIMED * capacity, count, seed=SEED)
