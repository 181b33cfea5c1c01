"""What was made for the last few keys, and for those that were asked to stay."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most so many values, by key; the least recently used goes first, before another is made.

    Values that are to stay are not among them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values, self._stay = dict[K, V](), dict[K, V]()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made if it is not kept."""
        if key in self._stay:
            return self._stay[key]
        if key in self._values:
            value = self._values.pop(key)
        else:
            while len(self._values) >= self._most:
                del self._values[next(iter(self._values))]
            value = make()
        self._values[key] = value
        return value

    def leaving(self, key: K) -> K | None:
        """The key whose value would go to make room for that of another; None where it is kept, or there is room."""
        kept = key in self._stay or key in self._values or len(self._values) < self._most
        return None if kept else next(iter(self._values))

    def keep(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made if it is not kept; it stays from now on."""
        if key not in self._stay:
            self._stay[key] = self._values.pop(key) if key in self._values else make()
        return self._stay[key]

    def clear(self) -> None:
        """Let all of them go, those that were to stay too."""
        self._values.clear()
        self._stay.clear()
