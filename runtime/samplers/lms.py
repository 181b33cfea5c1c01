"""Linear multistep (Adams–Bashforth) in σ."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.runtime.samplers.base import CONVERTED, TRAINED, SchedulerClass
from sdxl_trt.runtime.samplers.polynomials import lagrange
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.table import Form, Tape

LMS: Final = SchedulerClass(name="LMSDiscreteScheduler", defaults={**TRAINED, **CONVERTED})
_ORDER = 4


def lms(schedule: Schedule, tape: Tape) -> Form:
    """Adams–Bashforth of order 4 on dx/dσ = (x − x̂₀)/σ, with steps of any length; k-diffusion's sample_lms.

    Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, section III.5. Like diffusers, a run that
    begins part-way takes the weights of the full order from its first step, though it has no derivatives yet.
    """
    x = tape.start
    derivatives: list[Form] = []  # the newest first
    for i in schedule.indices:
        x, *derivatives, x0 = tape.evaluate(x, *derivatives, at=schedule.level(i))
        derivatives = [(x - x0) / schedule.sigmas[i], *derivatives][:_ORDER]
        weights = _weights(schedule.sigmas[i::-1][:_ORDER], schedule.sigmas[i + 1])
        for derivative, weight in zip(derivatives, weights, strict=False):
            x = x + weight * derivative
        derivatives = derivatives[: _ORDER - 1]
    return x


def _weights(sigmas: NDArray[np.float64], end: float) -> list[float]:
    """Integrals, from the first σ to `end`, of the polynomials that are 1 at one σ and 0 at the others."""
    integrals = (polynomial.integ() for polynomial in lagrange((sigmas - sigmas[0]).tolist()))
    return [float(integral(end - sigmas[0])) for integral in integrals]
