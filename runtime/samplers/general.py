"""Samplers for any model that predicts noise, v or the sample, in the order in which they are listed."""

from __future__ import annotations

from typing import Final

from sdxl_trt.runtime.samplers.base import Sampler
from sdxl_trt.runtime.samplers.ddim import DDIM, DDPM, ddim, ddpm
from sdxl_trt.runtime.samplers.deis import DEIS, deis, deis_schedule
from sdxl_trt.runtime.samplers.dpm_multistep import DPM_MULTISTEP, dpm_multistep
from sdxl_trt.runtime.samplers.dpm_singlestep import DPM_SINGLESTEP, dpm_singlestep
from sdxl_trt.runtime.samplers.euler import EULER, EULER_ANCESTRAL, euler, euler_ancestral
from sdxl_trt.runtime.samplers.lms import LMS, lms
from sdxl_trt.runtime.samplers.pndm import PNDM, pndm
from sdxl_trt.runtime.samplers.second_order import (
    DPM2,
    DPM2_ANCESTRAL,
    DPMPP_2S_ANCESTRAL,
    DPMPP_SDE,
    HEUN,
    dpm2,
    dpm2_ancestral,
    dpmpp_2s_ancestral,
    dpmpp_sde,
    heun,
    rounded_schedule,
)
from sdxl_trt.runtime.samplers.unipc import UNIPC, unipc, unipc_schedule
from sdxl_trt.runtime.schedules import discrete_schedule, pndm_schedule, sigma_schedule, solver_schedule

_KARRAS_ENDS: Final = (
    "Karras' σ span all of training here, whatever the spacing of timesteps, as in k-diffusion, but the timesteps "
    "given to the network are rounded"
)

GENERAL: Final = (
    Sampler(
        name="euler",
        title="Euler",
        aliases=("k_euler",),
        paper="arXiv 2206.00364, algorithm 1",
        good_for="SDXL's own choice: plain and predictable at 20 to 50 steps, no fresh noise",
        scheduler=EULER,
        recurrence=euler,
        schedule=sigma_schedule,
    ),
    Sampler(
        name="euler_a",
        title="Euler a",
        aliases=("euler_ancestral", "k_euler_a"),
        paper="arXiv 2006.11239, section 3.2",
        good_for="soft, varied pictures at 20 to 40 steps, which do not settle as steps grow; SDXL Turbo at 1 to 4",
        scheduler=EULER_ANCESTRAL,
        recurrence=euler_ancestral,
        schedule=sigma_schedule,
    ),
    Sampler(
        name="heun",
        title="Heun",
        aliases=("k_heun",),
        paper="arXiv 2206.00364, algorithm 1",
        good_for="precision: twice the evaluations, and half the steps, of Euler",
        scheduler=HEUN,
        recurrence=heun,
        schedule=sigma_schedule,
        order=2,
    ),
    Sampler(
        name="dpmpp_2m",
        title="DPM++ 2M",
        aliases=("dpm_solver_multistep",),
        paper="arXiv 2211.01095, algorithm 2",
        good_for="the best pictures of one evaluation per step at 15 to 30 steps, with Karras' σ above all",
        scheduler=DPM_MULTISTEP,
        recurrence=dpm_multistep,
        schedule=solver_schedule,
        overrides={"algorithm_type": "dpmsolver++", "solver_order": 2},
        differs=_KARRAS_ENDS,
    ),
    Sampler(
        name="dpmpp_2m_sde",
        title="DPM++ 2M SDE",
        aliases=(),
        paper="arXiv 2211.01095, appendix on SDEs",
        good_for="rich detail at 25 to 50 steps",
        scheduler=DPM_MULTISTEP,
        recurrence=dpm_multistep,
        schedule=solver_schedule,
        overrides={"algorithm_type": "sde-dpmsolver++", "solver_order": 2},
        differs="k-diffusion takes its noise from a Brownian tree, diffusers from the picture's generator",
    ),
    Sampler(
        name="dpmpp_3m_sde",
        title="DPM++ 3M SDE",
        aliases=(),
        paper="arXiv 2211.01095, appendix on SDEs",
        good_for="detail at 30 steps and more",
        scheduler=DPM_MULTISTEP,
        recurrence=dpm_multistep,
        schedule=solver_schedule,
        overrides={"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        differs="noise is not from a Brownian tree, and diffusers weights the second derivative otherwise "
        "(by -1/2 where the integral, and k-diffusion, have +1/2), by which it is of first order",
    ),
    Sampler(
        name="dpmpp_sde",
        title="DPM++ SDE",
        aliases=(),
        paper="arXiv 2211.01095, algorithm 1",
        good_for="few steps with strong detail (8 to 15, two evaluations each); noise_sampler_seed fixes its path",
        scheduler=DPMPP_SDE,
        recurrence=dpmpp_sde,
        schedule=sigma_schedule,
        order=2,
        differs="diffusers' own table of names has DPMSolverSinglestepScheduler here (dpmpp_2s, without noise); this "
        "is its DPMSolverSDEScheduler, k-diffusion's algorithm",
    ),
    Sampler(
        name="dpmpp_2s_a",
        title="DPM++ 2S a",
        aliases=("dpmpp_2s_ancestral",),
        paper="arXiv 2211.01095, algorithm 1",
        good_for="as Euler a with two evaluations per step, at 10 to 20 steps",
        scheduler=DPMPP_2S_ANCESTRAL,
        recurrence=dpmpp_2s_ancestral,
        schedule=sigma_schedule,
        order=2,
        differs="diffusers has none; this is k-diffusion's, on diffusers' levels",
    ),
    Sampler(
        name="dpmpp_2s",
        title="DPM++ 2S",
        aliases=("dpm_solver_singlestep",),
        paper="arXiv 2211.01095, algorithm 1",
        good_for="few steps without fresh noise; every evaluation counts as a step",
        scheduler=DPM_SINGLESTEP,
        recurrence=dpm_singlestep,
        schedule=solver_schedule,
        overrides={"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    Sampler(
        name="dpm2",
        title="DPM2",
        aliases=("dpm_2", "k_dpm_2"),
        paper="arXiv 2206.00927",
        good_for="as Heun, with the second evaluation half-way",
        scheduler=DPM2,
        recurrence=dpm2,
        schedule=rounded_schedule,
        order=2,
    ),
    Sampler(
        name="dpm2_a",
        title="DPM2 a",
        aliases=("dpm_2_ancestral", "k_dpm_2_a"),
        paper="arXiv 2206.00927",
        good_for="as Euler a, with two evaluations per step",
        scheduler=DPM2_ANCESTRAL,
        recurrence=dpm2_ancestral,
        schedule=rounded_schedule,
        order=2,
    ),
    Sampler(
        name="lms",
        title="LMS",
        aliases=("k_lms",),
        paper="Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section III.5",
        good_for="Euler's pictures at somewhat fewer steps; poor below 20 and where a run begins part-way",
        scheduler=LMS,
        recurrence=lms,
        schedule=sigma_schedule,
    ),
    Sampler(
        name="unipc",
        title="UniPC",
        aliases=("uni_pc", "uni_pc_bh2"),
        paper="arXiv 2302.04867",
        good_for="very few steps, 8 to 20, of one evaluation each",
        scheduler=UNIPC,
        recurrence=unipc,
        schedule=unipc_schedule,
    ),
    Sampler(
        name="deis",
        title="DEIS",
        aliases=(),
        paper="arXiv 2204.13902",
        good_for="few steps, 10 to 25, of one evaluation each",
        scheduler=DEIS,
        recurrence=deis,
        schedule=deis_schedule,
    ),
    Sampler(
        name="ddim",
        title="DDIM",
        aliases=(),
        paper="arXiv 2010.02502",
        good_for="the classic: 50 steps, exact inversion, and by eta any amount of fresh noise",
        scheduler=DDIM,
        recurrence=ddim,
        schedule=discrete_schedule,
    ),
    Sampler(
        name="ddpm",
        title="DDPM",
        aliases=(),
        paper="arXiv 2006.11239",
        good_for="the process of training itself, at hundreds of steps",
        scheduler=DDPM,
        recurrence=ddpm,
        schedule=discrete_schedule,
    ),
    Sampler(
        name="pndm",
        title="PLMS",
        aliases=("plms",),
        paper="arXiv 2202.09778",
        good_for="Stable Diffusion 1's choice, at 50 steps",
        scheduler=PNDM,
        recurrence=pndm,
        schedule=pndm_schedule,
        overrides={"skip_prk_steps": True},
    ),
)
