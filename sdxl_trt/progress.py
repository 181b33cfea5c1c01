"""How long-running work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as (stage in words, steps done, steps in all); done equal to all ends the stage. May be called from any
thread, often; must be quick and must not raise."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""
