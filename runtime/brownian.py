"""Noise from one Brownian path, in whatever order its increments are asked for.

The construction is torchsde's BrownianInterval with halfway_tree: the path's value is drawn first at the ends, then at
the middle of an interval given its ends, halving until the time asked for is a middle (Lévy's construction; Kidger et
al. 2021, arXiv 2105.13493, section 4). Every draw has a seed of its own, made from the interval's place in the tree
by numpy's SeedSequence; so the path is the same whatever is asked for first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.noise import TorchGenerator

_DIGITS = 6  # times are rounded to them: diffusers asks for a tolerance of 1e-6
_POOL = 24  # of SeedSequence, as diffusers asks for


@dataclass(frozen=True)
class _Interval:
    """A node of the tree: the path's increment from `start` to `end`, and where the node is."""

    start: float
    end: float
    increment: NDArray[np.float32]
    key: int = 0
    depth: int = 0


class BrownianPath:
    """A Brownian motion of a shape, between two times.

    Args:
        shape: of its values.
        lowest, highest: times between which it runs.
        seed: −2⁶³ … 2⁶³ − 1 and not negative, as SeedSequence takes it.
    """

    def __init__(self, shape: tuple[int, ...], *, lowest: float, highest: float, seed: int) -> None:
        self._shape, self._seed = shape, seed
        start, end = round(lowest, _DIGITS), round(highest, _DIGITS)
        (word, _) = np.random.SeedSequence(entropy=seed, pool_size=_POOL).generate_state(2)
        whole = TorchGenerator(int(word)).normal(shape) * np.float32(math.sqrt(highest - lowest))
        self._root = _Interval(start, end, whole)

    def increment(self, first: float, second: float) -> NDArray[np.float32]:
        """The path's way from `first` to `second`, divided by √|second − first|: float32 of unit variance.

        Times beyond its ends are taken for them.
        """
        low, high = (self._rounded(time) for time in sorted((first, second)))
        if low == high:
            return np.zeros(self._shape, np.float32)
        scale = np.float32(math.sqrt(abs(second - first)))
        way = self._before(high) - self._before(low)
        return (way if first < second else -way) / scale

    def _rounded(self, time: float) -> float:
        return round(min(max(time, self._root.start), self._root.end), _DIGITS)

    def _before(self, time: float) -> NDArray[np.float32]:
        """The increment from the path's beginning to a time."""
        node, total = self._root, np.zeros(self._shape, np.float32)
        if time == node.start:
            return total
        while time != node.end:
            left, right = self._halves(node)
            if time <= left.end:
                node = left
            else:
                node, total = right, total + left.increment
        return total + node.increment

    def _halves(self, node: _Interval) -> tuple[_Interval, _Interval]:
        """Both halves, the value between them drawn from a Brownian bridge."""
        middle = round((node.start + node.end) / 2, _DIGITS)
        place = np.random.SeedSequence(entropy=self._seed, spawn_key=(node.key, node.depth), pool_size=_POOL)
        before, after, length = middle - node.start, node.end - middle, node.end - node.start
        noise = TorchGenerator(int(place.generate_state(1)[0])).normal(self._shape)
        first = np.float32(before / length) * node.increment + np.float32(math.sqrt(before * after / length)) * noise
        return (
            _Interval(node.start, middle, first, 2 * node.key, node.depth + 1),
            _Interval(middle, node.end, node.increment - first, 2 * node.key + 1, node.depth + 1),
        )
