"""Samplers of two evaluations per step, but one in the last: Heun, DPM2, DPM++ 2S and DPM++ SDE.

Like diffusers, DPM2 and DPM++ SDE inpaint the sample in the middle of a step with the image at the level of its end.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Final

import numpy as np

from sdxl_trt.runtime.samplers.ancestral import ancestral_step
from sdxl_trt.runtime.samplers.base import CONVERTED, K_TRAINED, SchedulerClass
from sdxl_trt.runtime.schedules import Schedule, sigma_schedule
from sdxl_trt.runtime.table import BrownianRange, Form, Tape

HEUN: Final = SchedulerClass(name="HeunDiscreteScheduler", defaults={**K_TRAINED, **CONVERTED, "clip_sample": False})
_NO_SAMPLE: Final = {"prediction_type": ("epsilon", "v_prediction")}
DPM2: Final = SchedulerClass(name="KDPM2DiscreteScheduler", defaults={**K_TRAINED, **CONVERTED}, choices=_NO_SAMPLE)
DPM2_ANCESTRAL: Final = SchedulerClass(
    name="KDPM2AncestralDiscreteScheduler", defaults={**K_TRAINED, **CONVERTED}, choices=_NO_SAMPLE
)
DPMPP_SDE: Final = SchedulerClass(
    name="DPMSolverSDEScheduler",
    defaults={**K_TRAINED, **CONVERTED, "noise_sampler_seed": None},
    choices=_NO_SAMPLE,
)
DPMPP_2S_ANCESTRAL: Final = SchedulerClass(name="", defaults={**K_TRAINED, **CONVERTED})
rounded_schedule: Final = partial(sigma_schedule, rounded=True)


def heun(schedule: Schedule, tape: Tape) -> Form:
    """Heun's method on dx/dσ = (x − x̂₀)/σ; Karras et al. 2022 (arXiv 2206.00364), algorithm 1."""
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        d = (x - x0) / sigma
        predicted = x + (sigma_next - sigma) * d
        if sigma_next == 0:
            return predicted
        predicted, x, d, x0 = tape.evaluate(predicted, x, d, at=schedule.level(i + 1))
        x = x + (sigma_next - sigma) * (d + (predicted - x0) / sigma_next) / 2
    return x


def dpm2(schedule: Schedule, tape: Tape) -> Form:
    """The midpoint method, the midpoint taken in log σ; k-diffusion's sample_dpm_2 without churn.

    DPM-Solver-2 of Lu et al. 2022 (arXiv 2206.00927), as Karras et al. write it (algorithm 2 of arXiv 2206.00364).
    """
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        d = (x - x0) / sigma
        if sigma_next == 0:
            return x0
        middle = math.sqrt(sigma * sigma_next)
        at, blend = schedule.level_of_sigma(middle), schedule.level(i + 1)
        between, x, x0 = tape.evaluate(x + (middle - sigma) * d, x, at=at, blend=blend)
        x = x + (sigma_next - sigma) * (between - x0) / middle
    return x


def dpm2_ancestral(schedule: Schedule, tape: Tape) -> Form:
    """The same to below the next level, then fresh noise up to it; k-diffusion's sample_dpm_2_ancestral."""
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        down, up = ancestral_step(sigma, sigma_next)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        d = (x - x0) / sigma
        if sigma_next == 0:
            return x0
        middle = math.sqrt(sigma * down)
        between, x, x0 = tape.evaluate(x + (middle - sigma) * d, x, at=schedule.level_of_sigma(middle))
        x = x + (down - sigma) * (between - x0) / middle + up * tape.noise()
    return x


def dpmpp_2s_ancestral(schedule: Schedule, tape: Tape) -> Form:
    """DPM-Solver++(2S) with r = ½ to below the next level, then fresh noise; k-diffusion's sample_dpmpp_2s_ancestral.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 1, in x₀ + σ · n, where its exponentials are ratios of σ.
    """
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        down, up = ancestral_step(sigma, sigma_next)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        if sigma_next == 0:
            return x0
        middle = math.sqrt(sigma * down)
        _, x, x0 = tape.evaluate(_towards(x0, x, middle / sigma), x, at=schedule.level_of_sigma(middle))
        x = _towards(x0, x, down / sigma) + up * tape.noise()
    return x


def dpmpp_sde(schedule: Schedule, tape: Tape) -> Form:
    """DPM-Solver++(2S) on the SDE with r = ½ and noise from one Brownian path; k-diffusion's sample_dpmpp_sde.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 1, with the noise of both its stages from the same path.
    """
    positive = schedule.sigmas[schedule.sigmas > 0]
    path = BrownianRange(float(positive.min()), float(positive.max()), schedule.settings["noise_sampler_seed"])
    x = tape.start
    for i in schedule.indices:
        sigma, sigma_next = schedule.span(i)
        x, x0 = tape.evaluate(x, at=schedule.level(i))
        if sigma_next == 0:
            return x0
        middle = math.sqrt(sigma * sigma_next)
        down, up = ancestral_step(sigma, middle)
        start, half, end = _times(sigma, sigma_next)
        between = _towards(x0, x, down / sigma) + up * tape.brownian(start, half, path)
        at, blend = schedule.level_of_sigma(middle), schedule.level(i + 1)
        _, x, x0 = tape.evaluate(between, x, at=at, blend=blend)
        down, up = ancestral_step(sigma, sigma_next)
        x = _towards(x0, x, down / sigma) + up * tape.brownian(start, end, path)
    return x


def _times(sigma: float, sigma_next: float) -> tuple[float, float, float]:
    """σ at the start, middle and end of a step as diffusers asks its path for them: by float32 logarithms and back.

    The path has times of six digits, and float32 not many more: an exact σ could be the next time along.
    """
    start, end = -np.log(np.array([sigma, sigma_next])).astype(np.float32)
    half = start + (end - start) * np.float32(0.5)
    first, middle, last = np.exp(-np.array([start, half, end], np.float64)).astype(np.float32).tolist()
    return first, middle, last


def _towards(x0: Form, x: Form, ratio: float) -> Form:
    """x taken to the level that is `ratio` of its own, were x̂₀ the same on all the way."""
    return ratio * x + (1 - ratio) * x0
