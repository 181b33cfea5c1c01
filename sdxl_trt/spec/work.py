"""What one run of a graph takes, as polynomials over its axes: it travels with an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WORK_AXES = ("rows", "slots", "height", "width", "tokens")
"""Axes that terms are in; height and width in latent elements."""

MOST_TERMS = 64
MOST_POWER = 4
MOST_COEFFICIENT = 2.0**60


@dataclass(frozen=True, kw_only=True)
class Term:
    """A coefficient times a product of powers of axes."""

    coefficient: float
    powers: dict[str, int]
    """By axis: {"rows": 1, "height": 2, "width": 2} is rows·(height·width)²; empty for a constant."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.coefficient) and abs(self.coefficient) <= MOST_COEFFICIENT):
            raise ValueError(f"{self.coefficient} is no coefficient")
        for axis, power in self.powers.items():
            if axis not in WORK_AXES or not 0 < power <= MOST_POWER:
                raise ValueError(f"{axis[:80]!r} to the power {power} stands in no term")

    def __call__(self, axes: Mapping[str, int]) -> float:
        """Its value."""
        return self.coefficient * math.prod(float(axes[axis]) ** power for axis, power in self.powers.items())


Terms = tuple[Term, ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations, bytes and memory of one run of a graph.

    Exact at latent sizes that every level of the network halves evenly: multiples of 4 in SDXL's UNet, 8 in the
    refiner's, any in the VAE. Elsewhere a level rounds up, and the work is up to a few per cent more than this.
    """

    parameters: int
    weights: int
    """Bytes of the parameters in the dtype they are computed with; read once per run."""
    operation_terms: Terms
    traffic_terms: Terms
    """Bytes of activations that the heavy nodes (see `sdxl_trt.costs`) read and write."""
    live_terms: tuple[Terms, ...]
    """Bytes of activations that exist at once, at those places of the graph where there can be most."""

    def __post_init__(self) -> None:
        if not (0 <= self.parameters < 2**50 and 0 <= self.weights < 2**50):
            raise ValueError(f"{self.parameters} parameters, {self.weights} bytes of weights")
        if len(self.live_terms) > MOST_TERMS or any(
            len(terms) > MOST_TERMS for terms in (self.operation_terms, self.traffic_terms, *self.live_terms)
        ):
            raise ValueError(f"more than {MOST_TERMS} terms")

    def operations(self, axes: Mapping[str, int]) -> int:
        """Floating-point operations, two per multiply-add.

        Args:
            axes: size of each of the graph's axes by name; others are ignored.

        Raises:
            KeyError: an axis of the graph is not given.
        """
        return _value(self.operation_terms, axes)

    def bytes(self, axes: Mapping[str, int]) -> int:
        """Bytes that go to and from memory: weights once, and activations. Arguments and errors as `operations`."""
        return self.weights + _value(self.traffic_terms, axes)

    def activations(self, axes: Mapping[str, int]) -> int:
        """Bytes of activations at their peak. Arguments and errors as `operations`."""
        return max((_value(terms, axes) for terms in self.live_terms), default=0)


def _value(terms: Sequence[Term], axes: Mapping[str, int]) -> int:
    return round(math.fsum(term(axes) for term in terms))
