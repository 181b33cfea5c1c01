"""The time as a way of serving sees it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since a run began."""

    def now(self) -> float:
        """The time."""

    def wait_until(self, moment: float) -> None:
        """Do nothing until then; returns at once where it is past."""


class Watch:
    """The machine's clock, from its creation on."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> float:
        """The time."""
        return time.monotonic() - self._began

    def wait_until(self, moment: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, moment - self.now()))


class Simulated:
    """A clock that stands still but where somebody says how long something takes."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The time."""
        return self._now

    def wait_until(self, moment: float) -> None:
        """Go on to that moment."""
        self._now = max(self._now, moment)

    def spend(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
