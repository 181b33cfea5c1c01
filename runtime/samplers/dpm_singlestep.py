"""DPM-Solver and DPM-Solver++ in blocks of steps, each of which goes anew from the block's first sample: 2S, 3S."""

from __future__ import annotations

import math
from typing import Final

from sdxl_trt.runtime.samplers.base import SchedulerClass
from sdxl_trt.runtime.samplers.dpm_multistep import check_dpm_solver
from sdxl_trt.runtime.samplers.solver import (
    DPM_SOLVER_CHOICES,
    DPM_SOLVER_RENAMED,
    SOLVER_OPTIONS,
    Step,
    log_snr,
    noise_of,
)
from sdxl_trt.runtime.schedules import Schedule, Settings
from sdxl_trt.runtime.table import Form, Tape

_NO_SPACING = ("timestep_spacing", "steps_offset")
DPM_SINGLESTEP: Final = SchedulerClass(
    name="DPMSolverSinglestepScheduler",
    defaults={
        **{key: default for key, default in SOLVER_OPTIONS.items() if key not in _NO_SPACING},
        "lower_order_final": False,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -math.inf,
        "variance_type": None,
    },
    choices={**DPM_SOLVER_CHOICES, "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++")},
    renamed=DPM_SOLVER_RENAMED,
)


def dpm_singlestep(schedule: Schedule, tape: Tape) -> Form:
    """DPM-Solver++(2S), algorithm 1 of Lu et al. 2022 (arXiv 2211.01095), and its relatives of orders 1 to 3.

    A block of k steps has k evaluations; as in diffusers, each of them is counted as a step.

    Raises:
        SchedulerError: see `check_dpm_solver`.
    """
    settings = schedule.settings
    check_dpm_solver(schedule)
    orders = _orders(settings, schedule.steps)
    x, first, values = tape.start, list[Form](), list[Form]()  # values of x̂₀ or the noise, the newest first
    for i in schedule.indices:
        level = schedule.level(i)
        order = min(orders[i], i - schedule.begin + 1)
        if order == 1:
            x, x0 = tape.evaluate(x, at=level)
            first, values = [x], []
        else:
            x, *kept, x0 = tape.evaluate(x, *first, *values, at=level)
            first, values = kept[:1], kept[1:]
        values = [x0 if settings["algorithm_type"].endswith("++") else noise_of(x, x0, level), *values]
        step = Step(settings["algorithm_type"], schedule.mix(i - order + 1), schedule.mix(i + 1))
        derivatives = _derivatives(values[:order], schedule, i, step.h, settings["solver_type"])
        x = step.taken(first[0], derivatives, settings["solver_type"] if order == 2 else "heun", tape)
        values = values[:2]
    return x


def _orders(settings: Settings, steps: int) -> list[int]:
    """Of each step: 1, 2, … up to the solver's, and again; the last block is cut short where steps are left over."""
    order = settings["solver_order"]
    zero = settings["final_sigmas_type"] == "zero"
    blocks, left = divmod(steps, order)
    block = list(range(1, order + 1))
    if order == 1 or (not settings["lower_order_final"] and left == 0 and not zero):
        orders = block * blocks
    elif left:
        orders = block * blocks + block[:left]
    else:
        orders = block * (blocks - 1) + (block[:-1] + [1])
    return [*orders[:-1], 1] if zero else orders


def _derivatives(values: list[Form], schedule: Schedule, index: int, h: float, solver: str) -> list[Form]:
    """Value, first and second derivative by λ/h at the block's first level; the newest value comes first."""
    if len(values) == 1:
        return values
    start = log_snr(schedule.mix(index - len(values) + 1))
    at = [log_snr(schedule.mix(index - back)) - start for back in range(len(values))]
    newest = (values[0] - values[-1]) * (h / at[0])
    if len(values) == 2:
        return [values[1], newest]
    if solver == "midpoint":
        return [values[2], newest]
    middle = (values[1] - values[2]) * (h / at[1])
    apart = at[0] - at[1]
    return [values[2], (at[0] * middle - at[1] * newest) / apart, 2 * h / apart * (newest - middle)]
