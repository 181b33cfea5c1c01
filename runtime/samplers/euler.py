"""Euler's method, deterministic and ancestral."""

from __future__ import annotations

from functools import partial
from typing import Final

from sdxl_trt.runtime.samplers.ancestral import ancestral_step
from sdxl_trt.runtime.samplers.base import CONVERTED, EDM_TRAINED, TRAINED, SchedulerClass
from sdxl_trt.runtime.schedules import Schedule, edm_schedule
from sdxl_trt.runtime.table import Form, Tape

EULER: Final = SchedulerClass(
    name="EulerDiscreteScheduler",
    defaults={
        **TRAINED,
        **CONVERTED,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
)
EULER_ANCESTRAL: Final = SchedulerClass(
    name="EulerAncestralDiscreteScheduler",
    defaults=TRAINED,
    choices={"prediction_type": ("epsilon", "v_prediction")},
)
EDM_EULER: Final = SchedulerClass(
    name="EDMEulerScheduler",
    defaults=EDM_TRAINED,
    choices={"prediction_type": ("epsilon", "v_prediction")},
)
edm_euler_schedule: Final = partial(edm_schedule, double=True)


def euler(schedule: Schedule, tape: Tape) -> Form:
    """Euler's method on the probability-flow ODE, dx/dσ = (x − x̂₀)/σ.

    Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without its second-order correction (lines 6 to 8); k-diffusion's
    sample_euler without churn.
    """
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        d = (x - x0) / sigma
        x = x + (sigma_next - sigma) * d
    return x


def euler_ancestral(schedule: Schedule, tape: Tape) -> Form:
    """Euler's method to below the next level, then fresh noise up to it: DDPM's variance, in σ.

    Ho et al. 2020 (arXiv 2006.11239), section 3.2; k-diffusion's sample_euler_ancestral.
    """
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        down, up = ancestral_step(sigma, sigma_next)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        d = (x - x0) / sigma
        x = x + (down - sigma) * d + up * tape.noise()
    return x
