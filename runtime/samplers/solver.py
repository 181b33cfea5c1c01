"""One step of DPM-Solver in λ = log(α/σ), which is exact where the network's answer is a polynomial in λ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from sdxl_trt.runtime.levels import Level, Mix
from sdxl_trt.runtime.samplers.base import CONVERTED, TRAINED
from sdxl_trt.runtime.table import Form, Tape

SOLVER_OPTIONS: Final = {**TRAINED, **CONVERTED, "solver_order": 2, "thresholding": False, "lower_order_final": True}
DPM_SOLVER_CHOICES: Final = {
    "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"),
    "solver_type": ("midpoint", "heun"),
    "variance_type": (None,),
}
DPM_SOLVER_RENAMED: Final = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
}


def log_snr(mix: Mix) -> float:
    """λ = log(α/σ); infinite for a clean sample."""
    return math.inf if mix.noise == 0 else math.log(mix.image / mix.noise)


def noise_of(x: Form, x0: Form, level: Level) -> Form:
    """The noise in a sample, if x̂₀ is the rest of it."""
    return (x - level.image * x0) / level.noise


@dataclass(frozen=True)
class Step:
    """One step from the level `start` to the level `end`.

    Lu et al. 2022 (arXiv 2206.00927, and 2211.01095 with its appendix on SDEs): 'dpmsolver++' integrates x̂₀,
    'dpmsolver' the noise; 'sde-' is the same on the SDE.
    """

    algorithm: str
    start: Mix
    end: Mix

    @property
    def h(self) -> float:
        """Its length in λ."""
        return log_snr(self.end) - log_snr(self.start)

    def taken(self, x: Form, derivatives: list[Form], solver: str, tape: Tape) -> Form:
        """The sample after it.

        Args:
            x: the sample at its start.
            derivatives: of what is integrated, by λ/h: the value at the start, and its first and second derivative.
            solver: how the first is weighted where there is no second: 'midpoint' or 'heun'.
            tape: gives the noise, if the step is stochastic.
        """
        moved = x * self._kept()
        if self.h != 0:
            for derivative, weight in zip(derivatives, self._weights(solver, len(derivatives)), strict=False):
                moved = moved + weight * derivative
        return moved + self._fresh() * tape.noise() if self.stochastic else moved

    @property
    def stochastic(self) -> bool:
        """It adds noise."""
        return self.algorithm.startswith("sde-")

    @property
    def _clean(self) -> bool:
        return self.algorithm.endswith("++")

    def _kept(self) -> float:
        if not self._clean:
            return self.end.image / self.start.image
        kept = self.end.noise / self.start.noise
        return kept * math.exp(-self.h) if self.stochastic else kept

    def _weights(self, solver: str, count: int) -> tuple[float, float, float]:
        """Integrals of 1, λ and λ²/2 against the exponential, in units of h; 'midpoint' rounds the second one.

        The third is off in diffusers' SDE (−½ where the integral has +½), and here as well: with three derivatives
        it is of first order only.
        """
        if self._clean:
            factor, g = self.end.image, (2 * self.h if self.stochastic else self.h)
        else:
            factor, g = self.end.noise * (2 if self.stochastic else 1), -self.h
        once = -math.expm1(-g)
        twice = once / 2 if solver == "midpoint" and count == 2 else 1 - once / g
        thrice = (once - g) / g**2 + (-0.5 if self.stochastic else 0.5)
        return factor * once, factor * twice, factor * thrice

    def _fresh(self) -> float:
        variance = -math.expm1(-2 * self.h) if self._clean else math.expm1(2 * self.h)
        return self.end.noise * math.sqrt(variance)
