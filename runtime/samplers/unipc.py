"""UniPC: a predictor, corrected when the next evaluation is there, at no further cost."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import SchedulerError
from sdxl_trt.runtime.samplers.base import SchedulerClass
from sdxl_trt.runtime.samplers.solver import SOLVER_OPTIONS, log_snr, noise_of
from sdxl_trt.runtime.schedules import Schedule, solver_schedule
from sdxl_trt.runtime.table import Form, Tape

UNIPC: Final = SchedulerClass(
    name="UniPCMultistepScheduler",
    defaults={
        **SOLVER_OPTIONS,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": (),
        "final_sigmas_type": "zero",
    },
    choices={"solver_type": ("bh1", "bh2")},
    renamed={"solver_type": {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}},
)
unipc_schedule: Final = partial(solver_schedule, own_end=True)


def unipc(schedule: Schedule, tape: Tape) -> Form:
    """Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6 (UniP and UniC with B(h) of either kind).

    Raises:
        SchedulerError: a final σ of 0 that is not reached by a step of first order.
    """
    _check(schedule)
    settings = schedule.settings
    x, before, values, order = tape.start, list[Form](), list[Form](), 0  # values: of x̂₀ or the noise, newest first
    for i in schedule.indices:
        level = schedule.level(i)
        x, *kept, x0 = tape.evaluate(x, *before, *values, at=level)
        before, values = kept[:1], kept[1:]
        value = x0 if settings["predict_x0"] else noise_of(x, x0, level)
        if before and i - 1 not in settings["disable_corrector"]:
            x = _moved(schedule, i - 1, before[0], values[:order], value)
        values = [value, *values][: settings["solver_order"]]
        order = min(settings["solver_order"], i - schedule.begin + 1)
        if settings["lower_order_final"]:
            order = min(order, len(schedule.timesteps) - i)
        before = [x]
        x = _moved(schedule, i, x, values[:order], None)
    return x


def _check(schedule: Schedule) -> None:
    settings = schedule.settings
    if settings["final_sigmas_type"] == "zero" and not (settings["lower_order_final"] and settings["predict_x0"]):
        raise SchedulerError(
            "UniPC cannot end at σ = 0 in this way: λ is infinite there, which only a first-order step of x̂₀ can reach",
            got=f"lower_order_final = {settings['lower_order_final']}, predict_x0 = {settings['predict_x0']}",
            expected="lower_order_final = true and predict_x0 = true, or final_sigmas_type = sigma_min",
            fix="set final_sigmas_type to sigma_min",
        )


def _moved(schedule: Schedule, index: int, x: Form, values: list[Form], corrected: Form | None) -> Form:
    """x taken through the step `index`, from the values up to its start; corrected, if that at its end is given.

    Equations 3 and 9 of the paper: the weights ρ solve R · ρ = b, its equation 5.
    """
    start, end = schedule.mix(index), schedule.mix(index + 1)
    clean = schedule.settings["predict_x0"]
    h = log_snr(end) - log_snr(start)
    if h == 0:
        return x
    step = -h if clean else h
    kept, factor = (end.noise / start.noise, end.image) if clean else (end.image / start.image, end.noise)
    moved = kept * x - factor * math.expm1(step) * values[0]
    if len(values) == 1 and corrected is None:
        return moved
    ratios = [(log_snr(schedule.mix(index - back)) - log_snr(start)) / h for back in range(1, len(values))]
    b_of_h = step if schedule.settings["solver_type"] == "bh1" else math.expm1(step)
    weights = _rhos(ratios, step, b_of_h, corrects=corrected is not None)
    for value, ratio, weight in zip(values[1:], ratios, weights, strict=False):
        moved = moved - factor * b_of_h * weight / ratio * (value - values[0])
    return moved if corrected is None else moved - factor * b_of_h * weights[-1] * (corrected - values[0])


def _rhos(ratios: list[float], step: float, b_of_h: float, *, corrects: bool) -> NDArray[np.float64]:
    """The weights of the differences; of order 2 without, and of order 1 with a correction, ½ as in the paper."""
    unknowns = len(ratios) + corrects
    if unknowns == 1:
        return np.array([0.5])
    nodes = np.array([*ratios, 1.0])[:unknowns]
    phi, right, factorial = math.expm1(step) / step - 1, [], 1
    for n in range(1, unknowns + 1):
        right.append(phi * factorial / b_of_h)
        factorial *= n + 1
        phi = phi / step - 1 / factorial
    return np.linalg.solve(np.vander(nodes, increasing=True).T, np.array(right))
