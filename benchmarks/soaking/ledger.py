"""What was sent, and what became of it: each request has one end, and no other than those that it may have."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

PLAIN, AGAIN, CANCELLED, CUT, BROKEN, LATE, LAST = (
    "plain",
    "asked again",
    "cancelled",
    "cut off",
    "malformed",
    "too short a deadline",
    "at the end",
)
"""What is done to a request. At the end: sent right before the server is told to end."""
ANSWERED, REFUSED, TAKEN_BACK, LEFT, REJECTED, PASSED = (
    "answered",
    "refused (429)",
    "cancelled (499)",
    "left alone",
    "rejected (4xx)",
    "too late (504)",
)
LOST, DUPLICATED, WRONG = "LOST", "DUPLICATED", "WRONG"
FAULTS: Final = (LOST, DUPLICATED, WRONG)
ALLOWED: Final = {
    PLAIN: (ANSWERED, REFUSED),
    AGAIN: (ANSWERED, REFUSED),
    CANCELLED: (TAKEN_BACK, ANSWERED, REFUSED),
    CUT: (LEFT,),
    BROKEN: (REJECTED,),
    LATE: (PASSED, ANSWERED, REFUSED),
    LAST: (ANSWERED,),
}
"""Ends by what was done. Who is cancelled, or late, may have been answered just before."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What must not be."""

    number: int
    """Of the request."""
    kind: str
    """One of `FAULTS`."""
    deed: str
    what: str


class Ledger:
    """All requests of a run."""

    def __init__(self) -> None:
        self._deeds = dict[int, str]()
        self._ends = defaultdict[int, list[str]](list)
        self.faults = list[Fault]()

    @property
    def sent(self) -> int:
        """How many there are."""
        return len(self._deeds)

    def send(self, number: int, deed: str) -> None:
        """A request is on its way.

        Args:
            number: that no other has.
            deed: what is done to it.
        """
        if number in self._deeds:
            raise ValueError(f"two requests of number {number}")
        self._deeds[number] = deed

    def end(self, number: int, end: str, what: str = "") -> None:
        """A request has come to an end.

        Args:
            number: of the request.
            end: that it came to.
            what: more of it, where that is a fault.
        """
        deed, earlier = self._deeds[number], self._ends[number]
        earlier.append(end)
        if len(earlier) > 1:
            self.fault(number, DUPLICATED, f"{' and '.join(earlier)} {what}")
        elif end in FAULTS:
            self.fault(number, end, what)
        elif end not in ALLOWED[deed]:
            self.fault(number, WRONG, f"{end}; {what}")

    def close(self) -> None:
        """Nothing comes any more: what has no end is lost."""
        for number in [number for number in self._deeds if not self._ends[number]]:
            self.end(number, LOST, "it has no end")

    def counts(self) -> dict[str, Counter[str]]:
        """Requests by what was done to them, and by their ends."""
        table = defaultdict[str, Counter[str]](Counter)
        for number, deed in self._deeds.items():
            table[deed].update(self._ends[number][:1])
        return dict(table)

    def ended(self, end: str) -> int:
        """Requests that came to an end of a kind."""
        return sum(ends[:1] == [end] for ends in self._ends.values())

    def number_of(self, kind: str) -> int:
        """Faults of a kind."""
        return sum(fault.kind == kind for fault in self.faults)

    def fault(self, number: int, kind: str, what: str) -> None:
        """Something must not be.

        Args:
            number: of the request.
            kind: one of `FAULTS`.
            what: it is.
        """
        self.faults.append(Fault(number=number, kind=kind, deed=self._deeds[number], what=what))
