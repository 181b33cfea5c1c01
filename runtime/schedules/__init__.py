"""Schedules: which noise levels a run visits, spaced, rounded and cut as diffusers 0.42 does from a scheduler's config.

Sources: the forward process is Ho et al. 2020 (arXiv 2006.11239); σ = √((1 − ᾱ)/ᾱ) is Karras et al. 2022 (arXiv
2206.00364); spacings and the rescaling to zero terminal SNR are Lin et al. 2023 (arXiv 2305.08891).
"""

from sdxl_trt.runtime.schedules.families import (
    consistency_schedule,
    discrete_schedule,
    edm_schedule,
    pndm_schedule,
    sigma_schedule,
    solver_schedule,
)
from sdxl_trt.runtime.schedules.schedule import Schedule, Settings
from sdxl_trt.runtime.schedules.settings import checked_steps, read_settings

__all__ = [
    "Schedule",
    "Settings",
    "checked_steps",
    "consistency_schedule",
    "discrete_schedule",
    "edm_schedule",
    "pndm_schedule",
    "read_settings",
    "sigma_schedule",
    "solver_schedule",
]
