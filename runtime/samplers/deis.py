"""DEIS: exponential integration of the noise by polynomials in log ρ."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from numpy.polynomial import Polynomial

from sdxl_trt.runtime.samplers.base import SchedulerClass
from sdxl_trt.runtime.samplers.polynomials import lagrange
from sdxl_trt.runtime.samplers.solver import SOLVER_OPTIONS, noise_of
from sdxl_trt.runtime.schedules import Schedule, solver_schedule
from sdxl_trt.runtime.table import Form, Tape

DEIS: Final = SchedulerClass(
    name="DEISMultistepScheduler",
    defaults={**SOLVER_OPTIONS, "algorithm_type": "deis", "solver_type": "logrho"},
    choices={"algorithm_type": ("deis",), "solver_type": ("logrho",)},
    renamed={
        "algorithm_type": {"dpmsolver": "deis", "dpmsolver++": "deis"},
        "solver_type": dict.fromkeys(("midpoint", "heun", "bh1", "bh2"), "logrho"),
    },
    fixed={"final_sigmas_type": "sigma_min"},
)
deis_schedule: Final = partial(solver_schedule, own_end=True)
_FEW = 15  # steps below which `lower_order_final` holds


def deis(schedule: Schedule, tape: Tape) -> Form:
    """Zhang & Chen 2022 (arXiv 2204.13902), multistep DEIS with ρ = σ/α, its polynomials being in log ρ.

    x/α goes from ρₛ to ρₜ by ∫ ε̂(ρ) dρ, ε̂ being the polynomial in log ρ through the latest values.
    """
    x, values = tape.start, list[Form]()  # of the noise, the newest first
    for i in schedule.indices:
        level = schedule.level(i)
        x, *values, x0 = tape.evaluate(x, *values, at=level)
        values = [noise_of(x, x0, level), *values][: _order(schedule, i)]
        weights = _weights([float(schedule.sigmas[i - back]) for back in range(len(values))], schedule.sigmas[i + 1])
        moved = x / level.image
        for value, weight in zip(values, weights, strict=True):
            moved = moved + weight * value
        x = moved * schedule.mix(i + 1).image
        values = values[: schedule.settings["solver_order"] - 1]
    return x


def _order(schedule: Schedule, index: int) -> int:
    remaining = len(schedule.timesteps) - index
    few = schedule.settings["lower_order_final"] and len(schedule.timesteps) < _FEW
    order = min(schedule.settings["solver_order"], index - schedule.begin + 1)
    return min(order, remaining) if few and remaining <= 2 else int(order)


def _weights(rhos: list[float], end: float) -> list[float]:
    """∫ of the Lagrange polynomials in log ρ through `rhos`, from the first of them to `end`."""
    basis = lagrange([math.log(rho) for rho in rhos])
    return [_integral(polynomial, end) - _integral(polynomial, rhos[0]) for polynomial in basis]


def _integral(polynomial: Polynomial, rho: float) -> float:
    """∫ p(log ρ) dρ = ρ · (p − p′ + p″ − …)(log ρ)."""
    total, derivative, sign = 0.0, polynomial, 1.0
    for _ in range(polynomial.degree() + 1):
        total, derivative, sign = total + sign * float(derivative(math.log(rho))), derivative.deriv(), -sign
    return rho * total
