"""Samplers for models that need their own: those distilled to consistency, and those trained on σ themselves."""

from __future__ import annotations

from typing import Final

from sdxl_trt.runtime.samplers.base import Sampler
from sdxl_trt.runtime.samplers.consistency import LCM, TCD, lcm, tcd
from sdxl_trt.runtime.samplers.dpm_multistep import EDM_DPM_MULTISTEP, dpm_multistep, edm_multistep_schedule
from sdxl_trt.runtime.samplers.euler import EDM_EULER, edm_euler_schedule, euler
from sdxl_trt.runtime.schedules import consistency_schedule

SPECIAL: Final = (
    Sampler(
        name="lcm",
        title="LCM",
        aliases=(),
        paper="arXiv 2310.04378",
        good_for="latent consistency models and LCM-LoRA at 2 to 8 steps, and no others",
        scheduler=LCM,
        recurrence=lcm,
        schedule=consistency_schedule,
    ),
    Sampler(
        name="tcd",
        title="TCD",
        aliases=(),
        paper="arXiv 2402.19159",
        good_for="trajectory consistency models (TCD, Hyper-SD) at 1 to 8 steps; eta 0.3 is the authors' choice",
        scheduler=TCD,
        recurrence=tcd,
        schedule=consistency_schedule,
    ),
    Sampler(
        name="edm_euler",
        title="EDM Euler",
        aliases=(),
        paper="arXiv 2206.00364, algorithm 1",
        good_for="models trained on σ themselves: CosXL",
        scheduler=EDM_EULER,
        recurrence=euler,
        schedule=edm_euler_schedule,
    ),
    Sampler(
        name="edm_dpmpp_2m",
        title="EDM DPM++ 2M",
        aliases=("edm_dpm_solver_multistep",),
        paper="arXiv 2211.01095, algorithm 2",
        good_for="models trained on σ themselves: Playground v2.5",
        scheduler=EDM_DPM_MULTISTEP,
        recurrence=dpm_multistep,
        schedule=edm_multistep_schedule,
        overrides={"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
)
