"""Which pictures make the next step. Knows neither engines nor clocks, so that a simulation runs this very code.

A request's rank is a time in seconds; the smallest goes first:

    rank = left + behind + (arrived − priority · PRIORITY_SECONDS) / PATIENCE

`left` is how long its rows take that are not done yet; `behind`, the same of those of its client's own requests that go
or went before it: it stays when they are done, or the next one would always go first. So the shortest goes first, and a
client with many requests is as one with a long one. Time of arrival counts too, which bounds how long anything waits: a
request of L seconds of work, those of its client before it counted, is overtaken by those alone that come at most
PATIENCE · L seconds after it (and PRIORITY_SECONDS for each level of priority that they are above it).

A step takes the pictures of the first request, then of the next ones of the same size, as many as there is room for.
Those that have begun and are not among them are parked: they lose nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Group = Hashable
"""What pictures must have in common to step together: model, latent size and tokens."""

PATIENCE = 10.0
PRIORITY_SECONDS = 30.0
PRIORITIES = range(-2, 3)
"""0 where none is given; more goes first."""
ENOUGH = 0.95
"""A step has as few rows as reach this part of the best pace: more would only have everybody wait for them."""
FORGETTING = 0.2
"""Weight of a new measurement in the cost of rows."""


class Picture(Protocol):
    """One picture on its way."""

    @property
    def group(self) -> Group | None:
        """Of its next evaluation; None: it cannot step now."""

    @property
    def rows(self) -> int:
        """Of its next evaluation."""

    def left(self, costs: Costs) -> float:
        """Seconds that its rows take that are not done yet."""


class Job(Protocol):
    """What was asked for at once: some pictures."""

    behind: float
    """Seconds of work that its client's other requests had before it, at most; 0 in the beginning. `ranked` sets it."""

    @property
    def client(self) -> str:
        """Who asked."""

    @property
    def arrived(self) -> float:
        """Seconds by some clock."""

    @property
    def priority(self) -> int:
        """One of `PRIORITIES`."""

    @property
    def pictures(self) -> Sequence[Picture]:
        """Those that are not finished."""


@dataclass(kw_only=True)
class Costs:
    """Seconds of one row by group, as measured; by latent pixel where a group was not measured yet.

    Args:
        row: seconds for each latent pixel of a row, before anything was measured.
    """

    row: float = 1e-5
    measured: dict[Group, float] = field(default_factory=dict)

    def of(self, group: Group, pixels: int) -> float:
        """Seconds of one row.

        Args:
            group: that the row is of.
            pixels: of its latents.
        """
        return self.measured.get(group, self.row * pixels)

    def learn(self, group: Group, pixels: int, rows: int, seconds: float) -> None:
        """Note how long a step took."""
        found = seconds / rows
        known = self.measured.get(group, found)
        self.measured[group] = known + FORGETTING * (found - known)
        self.row += FORGETTING * (found / pixels - self.row)


@dataclass(kw_only=True)
class Room:
    """What one step may take."""

    slots: int
    rows: int
    enough: dict[Group, int] = field(default_factory=dict)
    """Fewer rows by group, as `learn` found them."""

    def learn(self, group: Group, times: Mapping[int, float]) -> None:
        """From a group's steps, find how few rows they may have.

        Args:
            group: whose steps they are.
            times: seconds of a step by its rows.
        """
        pace = {rows: rows / seconds for rows, seconds in times.items()}
        self.enough[group] = max(2, min(rows for rows in pace if pace[rows] >= ENOUGH * max(pace.values())))

    def rows_of(self, group: Group) -> int:
        """Of a step of this group at most."""
        return min(self.rows, self.enough.get(group, self.rows))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What steps next."""

    group: Group
    pictures: Sequence[Picture]

    @property
    def rows(self) -> int:
        """Of all of them."""
        return sum(picture.rows for picture in self.pictures)


def ranked(jobs: Iterable[Job], costs: Costs) -> list[tuple[float, Job]]:
    """Jobs with their ranks, the first to be served first."""
    by_client = defaultdict[str, list[tuple[float, float, Job]]](list)
    for job in jobs:
        left = sum(picture.left(costs) for picture in job.pictures)
        waited = (job.arrived - job.priority * PRIORITY_SECONDS) / PATIENCE
        by_client[job.client].append((left + waited, left, job))
    ranks = list[tuple[float, Job]]()
    for own in by_client.values():
        behind = 0.0
        for rank, left, job in sorted(own, key=lambda each: each[0]):
            job.behind = max(job.behind, behind)
            ranks.append((rank + job.behind, job))
            behind += left
    return sorted(ranks, key=lambda each: each[0])


def choose(jobs: Iterable[Job], costs: Costs, room: Room) -> Batch | None:
    """The next step; None where nothing can step."""
    group: Group | None = None
    chosen, rows = list[Picture](), 0
    for _, job in ranked(jobs, costs):
        for picture in job.pictures:
            if picture.group is None:
                continue
            group = picture.group if group is None else group
            fits = len(chosen) < room.slots and rows + picture.rows <= room.rows_of(group)
            if picture.group == group and (fits or not chosen):
                chosen.append(picture)
                rows += picture.rows
    return Batch(group=group, pictures=chosen) if chosen else None
