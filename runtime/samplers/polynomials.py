"""Polynomials through given points, which the multistep methods integrate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.polynomial import Polynomial


def lagrange(nodes: Sequence[float]) -> list[Polynomial]:
    """For each node the polynomial that is 1 there and 0 at all others."""
    basis = []
    for index, here in enumerate(nodes):
        others = [there for other, there in enumerate(nodes) if other != index]
        roots = Polynomial.fromroots(others) if others else Polynomial([1.0])
        basis.append(roots / math.prod(here - there for there in others))
    return basis
