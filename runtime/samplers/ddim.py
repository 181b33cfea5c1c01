"""DDIM and DDPM: the level after a step is looked up by timestep."""

from __future__ import annotations

import math
from typing import Final

from sdxl_trt.runtime.samplers.base import TRAINED, SchedulerClass
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.table import Form, Tape

_LEAST_VARIANCE = 1e-20
# Unlike diffusers' classes, clip_sample is off where a config does not speak of it: latents are no pixels.
_LEADING: Final = {**TRAINED, "timestep_spacing": "leading", "clip_sample": False, "thresholding": False}
DDIM: Final = SchedulerClass(name="DDIMScheduler", defaults={**_LEADING, "set_alpha_to_one": True, "eta": 0.0})
DDPM: Final = SchedulerClass(
    name="DDPMScheduler",
    defaults={**_LEADING, "variance_type": "fixed_small"},
    choices={"variance_type": ("fixed_small", "fixed_small_log", "fixed_large")},
)


def ddim(schedule: Schedule, tape: Tape) -> Form:
    """Song et al. 2020 (arXiv 2010.02502), equation 12; η = 0 is deterministic, η = 1 has DDPM's noise.

    Like diffusers, a step goes down by num_train_timesteps // steps, whatever timestep comes next.
    """
    stride, eta = schedule.settings["num_train_timesteps"] // schedule.steps, schedule.settings["eta"]
    x = tape.start
    for timestep in schedule.timesteps[schedule.begin :]:
        level, after = schedule.level_of_timestep(timestep), schedule.mix_of_timestep(timestep - stride)
        x, x0 = tape.evaluate(x, at=level)
        direction = (x - level.image * x0) / level.noise
        fresh = eta * (after.noise / level.noise) * math.sqrt(1 - (level.image / after.image) ** 2)
        x = after.image * x0 + math.sqrt(after.noise**2 - fresh**2) * direction
        if eta > 0:
            x = x + fresh * tape.noise()
    return x


def ddpm(schedule: Schedule, tape: Tape) -> Form:
    """Ho et al. 2020 (arXiv 2006.11239), equations 6 and 7, from each timestep to the next one that is visited."""
    large = schedule.settings["variance_type"] == "fixed_large"
    following = [*schedule.timesteps[1:], -1.0]
    x = tape.start
    for i in schedule.indices:
        level, after = schedule.level_of_timestep(schedule.timesteps[i]), schedule.mix_of_timestep(following[i])
        x, x0 = tape.evaluate(x, at=level)
        kept = level.image / after.image  # √(1 − β) of the step
        beta = 1 - kept**2
        shrunk = (after.noise / level.noise) ** 2
        x = after.image * beta / level.noise**2 * x0 + kept * shrunk * x
        if schedule.timesteps[i] > 0:
            variance = beta if large else max(shrunk * beta, _LEAST_VARIANCE)
            x = x + math.sqrt(variance) * tape.noise()
    return x
