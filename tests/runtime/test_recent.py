"""What was made for the last few keys."""

from __future__ import annotations

import weakref

import pytest

from sdxl_trt.runtime.recent import Recent


class Thing:
    """Can be watched."""


def test_the_least_recently_used_goes_before_another_is_made() -> None:
    recent, made, alive = Recent[int, Thing](2), list[int](), weakref.WeakSet[Thing]()

    def make(key: int) -> Thing:
        assert len(alive) < 2
        made.append(key)
        thing = Thing()
        alive.add(thing)
        return thing

    for key in (1, 2, 1, 3, 1, 2, 2, 3):
        recent.get(key, lambda key=key: make(key))
    assert made == [1, 2, 3, 2, 3]
    assert len(alive) == 2


def test_what_could_not_be_made_is_not_kept() -> None:
    recent = Recent[str, int](1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 5) == 5


def test_what_stays_is_not_among_the_most() -> None:
    recent, made = Recent[int, int](1), list[int]()

    def make(key: int) -> int:
        made.append(key)
        return -key

    assert recent.keep(1, lambda: make(1)) == -1
    for key in (2, 1, 2, 3, 1, 3):
        assert recent.get(key, lambda key=key: make(key)) == -key
    recent.keep(3, lambda: make(3))  # it is there: not made again
    for key in (4, 3, 4, 1):
        recent.get(key, lambda key=key: make(key))
    assert made == [1, 2, 3, 4]
