"""DPM-Solver and DPM-Solver++ with the values of earlier steps: 2M, 3M, and the same on the SDE."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from sdxl_trt.errors import SchedulerError
from sdxl_trt.runtime.samplers.base import EDM_TRAINED, SchedulerClass
from sdxl_trt.runtime.samplers.solver import (
    DPM_SOLVER_CHOICES,
    DPM_SOLVER_RENAMED,
    SOLVER_OPTIONS,
    Step,
    log_snr,
    noise_of,
)
from sdxl_trt.runtime.schedules import Schedule, edm_schedule
from sdxl_trt.runtime.table import Form, Tape

DPM_MULTISTEP: Final = SchedulerClass(
    name="DPMSolverMultistepScheduler",
    defaults={
        **SOLVER_OPTIONS,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "euler_at_final": False,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "use_lu_lambdas": False,
        "variance_type": None,
    },
    choices=DPM_SOLVER_CHOICES,
    renamed=DPM_SOLVER_RENAMED,
)
EDM_DPM_MULTISTEP: Final = SchedulerClass(
    name="EDMDPMSolverMultistepScheduler",
    defaults={
        **EDM_TRAINED,
        "solver_order": 2,
        "thresholding": False,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    choices={
        **DPM_SOLVER_CHOICES,
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
        "prediction_type": ("epsilon", "v_prediction"),
    },
    renamed=DPM_SOLVER_RENAMED,
)
edm_multistep_schedule: Final = partial(edm_schedule, double=False)
_FEW = 15  # steps below which `lower_order_final` holds


def dpm_multistep(schedule: Schedule, tape: Tape) -> Form:
    """DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095), and its relatives of orders 1 to 3.

    Raises:
        SchedulerError: a final σ of 0 with an algorithm that divides by it, or an order that the SDE does not have.
    """
    settings = schedule.settings
    check_dpm_solver(schedule)
    x, values = tape.start, list[Form]()  # of x̂₀ or the noise, the newest first
    for i in schedule.indices:
        level = schedule.level(i)
        x, *values, x0 = tape.evaluate(x, *values, at=level)
        clean = settings["algorithm_type"].endswith("++")
        values = [x0 if clean else noise_of(x, x0, level), *values][: _order(schedule, i)]
        step = Step(settings["algorithm_type"], schedule.mix(i), schedule.mix(i + 1))
        x = step.taken(x, _derivatives(values, schedule, i, step.h), settings["solver_type"], tape)
        values = values[: settings["solver_order"] - 1]
    return x


def check_dpm_solver(schedule: Schedule) -> None:
    """Refuse what DPM-Solver cannot do.

    Raises:
        SchedulerError: a final σ of 0 with an algorithm that divides by it, or an order that the SDE does not have.
    """
    algorithm, order = schedule.settings["algorithm_type"], schedule.settings["solver_order"]
    if not algorithm.endswith("++") and schedule.settings["final_sigmas_type"] == "zero":
        raise SchedulerError(
            f"{algorithm} cannot end at σ = 0: it integrates the noise, of which nothing is left there",
            got="final_sigmas_type = zero",
            expected="final_sigmas_type = sigma_min, or algorithm_type dpmsolver++ or sde-dpmsolver++",
            fix="set final_sigmas_type to sigma_min",
        )
    third = order == 3 and (
        algorithm == "sde-dpmsolver" or (algorithm == "sde-dpmsolver++" and not schedule.preserving)
    )
    if third:
        raise SchedulerError(
            f"there is no third-order step of {algorithm} in this sampler",
            got="solver_order = 3",
            expected="solver_order = 1 or 2",
            fix="set solver_order to 2",
        )


def _order(schedule: Schedule, index: int) -> int:
    """Of a step: it grows with the values there are, and falls at the end where the settings say so."""
    settings = schedule.settings
    remaining = len(schedule.timesteps) - index
    few = settings["lower_order_final"] and len(schedule.timesteps) < _FEW
    order = min(settings["solver_order"], index - schedule.begin + 1)
    if remaining == 1 and (settings["euler_at_final"] or few or settings["final_sigmas_type"] == "zero"):
        return 1
    return min(order, 2) if remaining == 2 and few else int(order)


def _derivatives(values: list[Form], schedule: Schedule, index: int, h: float) -> list[Form]:
    """Value, first and second derivative by λ/h at the newest, from divided differences."""
    if len(values) == 1:
        return values
    at = [log_snr(schedule.mix(index - back)) for back in range(len(values))]
    slope = (values[0] - values[1]) * (h / (at[0] - at[1]))
    if len(values) == 2:
        return [values[0], slope]
    earlier = (values[1] - values[2]) * (h / (at[1] - at[2]))
    span = at[0] - at[2]
    bend = slope - earlier
    return [values[0], slope + (at[0] - at[1]) / span * bend, h / span * bend]
