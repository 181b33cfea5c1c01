"""Quantiles of the symmetric beta distribution, to float64 precision, without scipy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_HALVINGS = 200  # a bisection in float64 ends where both ends meet; the smallest quantiles need the most
_TERMS = 60  # of the series, whose terms fall at least as fast as powers of a half


def symmetric_beta_quantiles(probabilities: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """x with I_x(shape, shape) = probability, float64 [n].

    Args:
        probabilities: [n], 0 to 1.
        shape: both parameters of the distribution, above 0.
    """
    upper = probabilities > 0.5
    tail = np.where(upper, 1 - probabilities, probabilities)
    low, high = np.zeros_like(tail), np.full_like(tail, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _lower_half(middle, shape) < tail
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    middle = np.where(tail == 0, 0.0, high)
    return np.where(upper, 1 - middle, middle)


def _lower_half(x: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """The regularised incomplete beta function for x up to ½: DLMF 8.17.8 as a power series."""
    term = np.ones_like(x)
    total = term / shape
    for n in range(1, _TERMS):
        term = term * x * (n - shape) / n
        total = total + term / (shape + n)
    complete = math.exp(2 * math.lgamma(shape) - math.lgamma(2 * shape))
    value: NDArray[np.float64] = x**shape * total / complete
    return value
