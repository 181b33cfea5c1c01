"""Trying again what may work a moment later, and knowing when to stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from sdxl_trt.errors import TransferError, Unreachable

T = TypeVar("T")


class Transient(Exception):
    """What may work a moment later.

    Args:
        reason: what happened, in words.
        after: seconds that the other end asked to wait.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.after = reason, after


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often something is tried again, and how long before that."""

    pauses: tuple[float, ...] = (0.5, 1, 2, 4, 8)
    """Seconds before each further attempt; up to a half is added at random, so that clients do not go in step."""
    longest: float = 120
    """Seconds beyond which waiting for the other end is not worth it."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set where nobody waits for results any more: then nothing is tried again."""

    def attempts(self, what: str) -> Iterator[Callable[[Transient], None]]:
        """Attempts; each gets a function that is to be told of its failure, and waits.

        Raises:
            Unreachable: told of a failure once too often.
            TransferError: told of one after the end.
        """
        for pause in (*self.pauses, None):

            def failed(reason: Transient, pause: float | None = pause) -> None:
                if pause is None or reason.after > self.longest:
                    raise _gave_up(what, reason, len(self.pauses) + 1) from reason
                seconds = max(pause * random.uniform(1, 1.5), reason.after)  # noqa: S311 (no secret)
                if self.ended.wait(seconds):
                    raise TransferError(f"{what} was stopped", got=reason.reason) from reason

            yield failed

    def persist(self, what: str, action: Callable[[], T]) -> T:
        """What an action returns, at the first attempt that is not `Transient`.

        Raises:
            Unreachable: none was.
        """
        for failed in self.attempts(what):
            try:
                return action()
            except Transient as reason:
                failed(reason)
        raise AssertionError("the last failure raises")


def _gave_up(what: str, reason: Transient, times: int) -> Unreachable:
    wait = f"; it asks to wait {reason.after:.0f} s" if reason.after else ""
    return Unreachable(
        f"{what} failed, {times} times" if not wait else f"{what} failed",
        got=reason.reason + wait,
        fix="run the same command again later: it goes on where it stopped",
    )
