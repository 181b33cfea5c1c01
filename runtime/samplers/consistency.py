"""Samplers of distilled models: they jump to the clean sample, or far ahead, and add fresh noise."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from sdxl_trt.runtime.samplers.base import TRAINED, SchedulerClass
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.table import Form, Tape

_DISTILLED: Final = {
    **TRAINED,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "set_alpha_to_one": True,
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
    "clip_sample": False,
    "thresholding": False,
}
LCM: Final = SchedulerClass(name="LCMScheduler", defaults=_DISTILLED)
TCD: Final = SchedulerClass(name="TCDScheduler", defaults={**_DISTILLED, "eta": 0.0})
_SIGMA_DATA = 0.5


def lcm(schedule: Schedule, tape: Tape) -> Form:
    """Luo et al. 2023 (arXiv 2310.04378), algorithm 3: the consistency function, then noise for the next level."""
    x = tape.start
    for i in schedule.indices:
        timestep = float(schedule.timesteps[i])
        x, x0 = tape.evaluate(x, at=schedule.level_of_timestep(timestep))
        scaled = timestep * schedule.settings["timestep_scaling"]
        spread = math.hypot(scaled, _SIGMA_DATA)
        x = scaled / spread * x0 + (_SIGMA_DATA / spread) ** 2 * x
        if i != schedule.steps - 1:
            after = schedule.mix_of_timestep(schedule.timesteps[i + 1])
            x = after.image * x + after.noise * tape.noise()
    return x


def tcd(schedule: Schedule, tape: Tape) -> Form:
    """Zheng et al. 2024 (arXiv 2402.19159), algorithm 4: strategic stochastic sampling, its γ being eta here.

    η = 0 goes straight to the next level, η = 1 to the clean sample and back.
    """
    eta = schedule.settings["eta"]
    x = tape.start
    for i in schedule.indices:
        last = i == schedule.steps - 1
        following = 0.0 if last else float(schedule.timesteps[i + 1])
        # in float32, as torch multiplies a number with a whole timestep
        target = schedule.mix_of_timestep(float(np.floor(np.float32(1 - eta) * np.float32(following))))
        level = schedule.level_of_timestep(schedule.timesteps[i])
        x, x0 = tape.evaluate(x, at=level)
        x = target.image * x0 + target.noise * (x - level.image * x0) / level.noise
        if eta > 0 and not last:
            kept = schedule.mix_of_timestep(following).image / target.image
            x = kept * x + math.sqrt(1 - kept**2) * tape.noise()
    return x
