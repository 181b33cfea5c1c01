"""Whether something grows: a line by least squares through samples that are near each other, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SURE: Final = 1.96
"""Standard errors that a true slope is within, 19 times of 20."""
FEWEST: Final = 8
"""Samples that a line is drawn through."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """How fast something grows."""

    slope: float
    """Per second."""
    error: float
    """Of the slope, within which it is 19 times of 20."""
    jumps: tuple[float, ...]
    """By how much it rose at each moment at which it may have jumped."""

    @property
    def least(self) -> float:
        """What the slope surely is at least: a growth is seen where this is above what is allowed."""
        return self.slope - self.error


def fit(moments: Sequence[float], values: Sequence[float], jumps: Sequence[float] = ()) -> Line:
    """The line of least squares, with a jump wherever one is possible.

    Samples near each other are alike, which makes a line look surer than it is: the error is for as many samples as
    there would be if they were independent (n · (1 − r) / (1 + r), r being how much a residual is as the one before).

    Args:
        moments: in seconds, ascending.
        values: as many.
        jumps: moments at which the level may change; those without samples on both sides are left out.

    Raises:
        ValueError: fewer than `FEWEST` samples.
    """
    at, found = np.asarray(moments, float), np.asarray(values, float)
    if len(at) < FEWEST:
        raise ValueError(f"{len(at)} samples are too few for a line")
    steps = [at >= jump for jump in jumps if at[0] < jump <= at[-1]]
    design = np.column_stack([np.ones_like(at), at - at.mean(), *steps]).astype(float)
    solution = np.linalg.lstsq(design, found, rcond=None)[0]
    residuals = found - design @ solution
    spare = max(1.0, len(at) * _independence(residuals) - design.shape[1])
    variance = float(residuals @ residuals) / spare * float(np.linalg.pinv(design.T @ design)[1, 1])
    return Line(slope=float(solution[1]), error=SURE * variance**0.5, jumps=tuple(map(float, solution[2:])))


def _independence(residuals: NDArray[np.float64]) -> float:
    """Independent samples for each sample, 0 to 1."""
    total = float(residuals @ residuals)
    alike = float(residuals[1:] @ residuals[:-1]) / total if total else 0.0
    alike = min(max(alike, 0.0), 0.99)
    return (1 - alike) / (1 + alike)
