"""Who goes first: rules of the scheduler, on pictures that are numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sdxl_trt.runtime.serve.scheduler import PATIENCE, PRIORITY_SECONDS, Costs, Group, Room, choose, ranked

SECOND = 0.01
"""Of one row."""


@dataclass(eq=False)
class Fake:
    """A picture of so many evaluations."""

    evaluations: int
    rows: int = 2
    group: Group | None = "128"

    def left(self, costs: Costs) -> float:
        return self.evaluations * self.rows * costs.of(self.group, 1)


@dataclass(eq=False)
class Ask:
    """A request."""

    name: str
    steps: int
    client: str = ""
    arrived: float = 0.0
    priority: int = 0
    behind: float = 0.0
    images: int = 1
    rows: int = 2
    group: Group | None = "128"
    pictures: list[Fake] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = self.client or self.name
        self.pictures = self.pictures or [Fake(self.steps, self.rows, self.group) for _ in range(self.images)]


def costs() -> Costs:
    return Costs(measured=dict.fromkeys(("128", "160"), SECOND))


def order(*asked: Ask) -> list[str]:
    return [job.name for _, job in ranked(asked, costs()) if isinstance(job, Ask)]


def stepped(room: Room, *asked: Ask) -> list[str]:
    batch = choose(asked, costs(), room)
    assert batch is not None
    names = {id(picture): ask.name for ask in asked for picture in ask.pictures}
    return [names[id(picture)] for picture in batch.pictures]


def test_the_shortest_goes_first() -> None:
    assert order(Ask("long", 30), Ask("short", 4), Ask("middle", 10)) == ["short", "middle", "long"]


def test_a_request_counts_with_all_its_pictures() -> None:
    assert order(Ask("four", 5, images=4), Ask("one", 10)) == ["one", "four"]


def test_what_waits_is_overtaken_for_a_bounded_time_alone() -> None:
    """A request of L seconds goes before all that come more than PATIENCE · L after it, however short they are."""
    long = Ask("long", 30)
    own = 30 * 2 * SECOND
    assert order(long, Ask("soon", 1, arrived=0.9 * PATIENCE * own)) == ["soon", "long"]
    assert order(long, Ask("later", 1, arrived=PATIENCE * own)) == ["long", "later"]


def test_a_client_with_many_requests_is_as_one_with_a_long_one() -> None:
    greedy = [Ask(f"greedy {i}", 10, client="greedy") for i in range(5)]
    assert order(*greedy, Ask("modest", 25)) == ["greedy 0", "greedy 1", "modest", "greedy 2", "greedy 3", "greedy 4"]


def test_a_client_with_many_requests_stays_so_when_some_are_done() -> None:
    """Else whichever of them is next would go before everybody else, until none is left."""
    greedy, modest = [Ask(f"greedy {i}", 10, client="greedy") for i in range(5)], Ask("modest", 10, arrived=0.1)
    assert order(*greedy, modest)[:2] == ["greedy 0", "modest"]
    assert order(*greedy[1:], modest)[:2] == ["modest", "greedy 1"]


def test_a_clients_own_requests_go_shortest_first() -> None:
    assert order(Ask("a", 30, client="one"), Ask("b", 2, client="one")) == ["b", "a"]


def test_priority_is_worth_seconds_of_waiting() -> None:
    """More goes first, and no more than so much earlier."""
    assert order(Ask("usual", 4), Ask("urgent", 30, priority=1)) == ["urgent", "usual"]
    late = Ask("urgent", 4, priority=1, arrived=PRIORITY_SECONDS + 1)
    assert order(Ask("usual", 4), late) == ["usual", "urgent"]


def test_a_step_is_of_one_size_and_the_first_request_says_which() -> None:
    asked = (Ask("a", 3, group="160"), Ask("b", 9, group="128"), Ask("c", 20, group="160"))
    assert stepped(Room(slots=8, rows=16), *asked) == ["a", "c"]


def test_slots_and_rows_bound_a_step() -> None:
    asked = [Ask(str(i), i) for i in range(1, 9)]
    assert stepped(Room(slots=3, rows=16), *asked) == ["1", "2", "3"]
    assert stepped(Room(slots=8, rows=5), *asked) == ["1", "2"]


def test_a_row_that_is_left_goes_to_who_needs_one_alone() -> None:
    asked = (Ask("a", 1), Ask("b", 2), Ask("c", 9, rows=1))
    assert stepped(Room(slots=8, rows=3), *asked) == ["a", "c"]


def test_the_first_picture_always_fits() -> None:
    assert stepped(Room(slots=8, rows=1), Ask("guided", 5)) == ["guided"]


def test_what_cannot_step_now_is_passed_over() -> None:
    asked = (Ask("encoding", 1, group=None), Ask("ready", 9))
    assert stepped(Room(slots=8, rows=16), *asked) == ["ready"]
    assert choose([Ask("encoding", 1, group=None)], costs(), Room(slots=8, rows=16)) is None


def test_costs_are_learnt_and_guessed_by_size_before() -> None:
    known = Costs(row=1.0)
    assert known.of("a", 100) == 100.0
    for _ in range(60):
        known.learn("a", 100, rows=4, seconds=2.0)
    assert known.of("a", 100) == pytest.approx(0.5)
    assert known.of("b", 200) == pytest.approx(1.0, rel=1e-3)
