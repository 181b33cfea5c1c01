"""Who asks for what, and when: an open-loop load, the same for every way of serving it.

Requests come at random (a Poisson process), whether earlier ones are done or not. What they ask for is drawn from a
shuffled deck, so that every run asks for the same work but for its last cards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

Size = tuple[int, int]
"""Width and height in pixels."""

SHORT: Final = (1, 2, 3, 4)
"""Steps of a third of the requests, which have no guidance: what distilled models are asked for."""
LONG: Final = (9, 12, 15, 18, 21, 24, 27, 30)
"""Steps of the others, with guidance."""
CLIENTS: Final = ("ann", "ben", "cem", "dao")
GREEDY: Final = "greedy"
BURST: Final = 20
"""Requests that the greedy client makes at once."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One picture."""

    steps: int
    guided: bool
    size: Size

    @property
    def rows(self) -> int:
        """The UNet's rows that a step takes."""
        return 2 if self.guided else 1

    @property
    def short(self) -> bool:
        """Few steps."""
        return self.steps <= max(SHORT)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request for one picture."""

    number: int
    """Its place in the run, from 0."""
    at: float
    """Seconds after the run began."""
    asked: Asked
    client: str


def deck(sizes: Sequence[Size]) -> list[Asked]:
    """One of each: a third of them short."""
    shorts = [Asked(steps=steps, guided=False, size=size) for steps in SHORT for size in sizes]
    return shorts + [Asked(steps=steps, guided=True, size=size) for steps in LONG for size in sizes]


def poisson(cards: Sequence[Asked], rate: float, count: int, *, seed: int) -> list[Arrival]:
    """Requests of several clients.

    Args:
        cards: of a deck.
        rate: requests per second.
        count: of requests.
        seed: of gaps, cards and clients.
    """
    random = np.random.default_rng(seed)
    moments, dealt = np.cumsum(random.exponential(1 / rate, count)), _deal(cards, random)
    clients = random.integers(len(CLIENTS), size=count)
    return [
        Arrival(number=number, at=float(at), asked=next(dealt), client=CLIENTS[client])
        for number, (at, client) in enumerate(zip(moments, clients, strict=True))
    ]


def beside_greedy(cards: Sequence[Asked], rate: float, count: int, *, seed: int) -> list[Arrival]:
    """Half of the requests as above; the others from one client that makes `BURST` of them at a time.

    Args:
        cards, rate, count, seed: as of `poisson`, of all requests together.
    """
    modest = poisson(cards, rate / 2, count // 2, seed=seed)
    greedy = poisson(cards, rate / 2, count - len(modest), seed=seed + 1)
    bursts = [replace(each, at=greedy[index - index % BURST].at, client=GREEDY) for index, each in enumerate(greedy)]
    merged = sorted([*modest, *bursts], key=lambda each: each.at)
    return [replace(each, number=number) for number, each in enumerate(merged)]


def _deal(cards: Sequence[Asked], random: np.random.Generator) -> Iterator[Asked]:
    while True:
        yield from (cards[index] for index in random.permutation(len(cards)))
