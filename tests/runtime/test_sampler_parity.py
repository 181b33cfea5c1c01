"""Every sampler against diffusers' scheduler of that class: float32 against float64, torch's generator, one picture.

The network is the same numpy function for both. Measured is the largest difference of the result, relative to its
largest element.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from reference_schedulers import WHOLE, Cut, make_scheduler, run_ours, run_theirs

from sdxl_trt.errors import SchedulerError, UsageError
from sdxl_trt.runtime.samplers import SamplerOptions, make_table
from sdxl_trt.spec import HISTORY, Column

TIGHT = 5e-6
REQUIRED = {
    "HeunDiscreteScheduler": 4e-5,
    "KDPM2AncestralDiscreteScheduler": 1e-4,
    "DPMSolverSinglestepScheduler": 2e-5,
}
"""Their coefficients are differences of nearly equal numbers, and a table is float32, as diffusers' σ are."""
SDXL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "noise_sampler_seed": 42,
}
STEPS = (1, 2, 5, 20)
SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
CONVERTED = ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True})
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}

OPTIONS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "EulerDiscreteScheduler": (*CONVERTED, SIGMA_MIN, {"interpolation_type": "log_linear"}),
    "EulerAncestralDiscreteScheduler": ({},),
    "HeunDiscreteScheduler": CONVERTED,
    "LMSDiscreteScheduler": CONVERTED,
    "KDPM2DiscreteScheduler": CONVERTED,
    "KDPM2AncestralDiscreteScheduler": CONVERTED,
    "DPMSolverSDEScheduler": CONVERTED,
    "DPMSolverMultistepScheduler": (
        *CONVERTED,
        {"use_lu_lambdas": True},
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_order": 3, "lower_order_final": False, **SIGMA_MIN},
        {"solver_type": "heun", "euler_at_final": True},
        {"algorithm_type": "dpmsolver", "solver_order": 3, **SIGMA_MIN},
        {"algorithm_type": "dpmsolver", "solver_type": "heun", **SIGMA_MIN},
        {"algorithm_type": "sde-dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True, "solver_type": "heun"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        {"algorithm_type": "sde-dpmsolver", **SIGMA_MIN},
        {"algorithm_type": "sde-dpmsolver", "solver_type": "heun", **SIGMA_MIN},
        {"lambda_min_clipped": -2.0},
    ),
    "DPMSolverSinglestepScheduler": (
        *CONVERTED,
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_order": 3, "solver_type": "heun", "lower_order_final": True},
        {"algorithm_type": "dpmsolver", "solver_order": 3, "solver_type": "heun", **SIGMA_MIN},
        {"algorithm_type": "dpmsolver", **SIGMA_MIN},
        {"algorithm_type": "sde-dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"},
    ),
    "DEISMultistepScheduler": (*CONVERTED, {"solver_order": 1}, {"solver_order": 3}),
    "UniPCMultistepScheduler": (
        *CONVERTED,
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "bh1", **SIGMA_MIN},
        {"solver_type": "bh1", "solver_order": 3, "lower_order_final": False, **SIGMA_MIN},
        {"predict_x0": False, **SIGMA_MIN},
        {"disable_corrector": [0, 2]},
    ),
    "DDIMScheduler": ({}, {"set_alpha_to_one": False}),
    "DDPMScheduler": ({}, {"variance_type": "fixed_small_log"}, {"variance_type": "fixed_large"}),
    "PNDMScheduler": ({"skip_prk_steps": True}, {"skip_prk_steps": True, "set_alpha_to_one": True}, {}),
    "LCMScheduler": ({}, {"original_inference_steps": 100}),
    "TCDScheduler": ({},),
    "EDMEulerScheduler": ({}, {"sigma_schedule": "exponential"}, {"sigma_data": 1.0, "sigma_max": 120.0}, SIGMA_MIN),
    "EDMDPMSolverMultistepScheduler": (
        {},
        {"sigma_schedule": "exponential"},
        {"solver_order": 3},
        {"solver_type": "heun"},
        SIGMA_MIN,
        {"algorithm_type": "sde-dpmsolver++"},
    ),
}
CASES = [(name, options) for name, variants in OPTIONS.items() for options in variants]
NO_SAMPLE_PREDICTION = {
    "EulerAncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "PNDMScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
}


def configs(name: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every spacing and prediction that the class has."""
    edm = name.startswith("EDM")
    spacings = (
        [{}]
        if edm or name in {"LCMScheduler", "TCDScheduler", "DPMSolverSinglestepScheduler"}
        else [{"timestep_spacing": spacing} for spacing in SPACINGS]
    )
    predictions = [each for each in PREDICTIONS if each != "sample" or name not in NO_SAMPLE_PREDICTION]
    base = {} if edm else SDXL
    return [
        {**base, **options, **spacing, "prediction_type": prediction}
        for spacing, prediction in itertools.product(spacings, predictions)
    ]


def distance(name: str, config: Mapping[str, Any], steps: int, cut: Cut = WHOLE, eta: float | None = None) -> float:
    table = make_table(
        config,
        steps,
        name,
        options=SamplerOptions(eta=eta),
        strength=cut.strength,
        denoising_start=cut.start,
        denoising_end=cut.end,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make_scheduler(name, config)
        theirs = run_theirs(scheduler, steps, cut, **({} if eta is None else {"eta": eta}))
    return float(np.abs(run_ours(table) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value).replace(" ", ""))
def test_results_are_diffusers(name: str, options: Mapping[str, Any]) -> None:
    warm_up = name == "PNDMScheduler" and not options.get("skip_prk_steps")
    stands_still = name == "DEISMultistepScheduler" and any("_sigmas" in option for option in options)  # in one step
    eta = 0.0 if name == "TCDScheduler" else None
    worst, where = 0.0, ""
    for config in configs(name, options):
        for steps in (5, 20) if warm_up else STEPS[stands_still:]:
            error = distance(name, config, steps, eta=eta)
            if not error <= worst:
                worst, where = error, f"{config['prediction_type']}, {config.get('timestep_spacing')}, {steps} steps"
    required = REQUIRED.get(name, TIGHT)
    print(f"{name} {options}: measured {worst:.1e} ({where}), required {required:.0e}")
    assert worst <= required


@pytest.mark.parametrize("name", OPTIONS)
def test_runs_from_an_image_are_diffusers(name: str) -> None:
    """strength 0.3 and 0.75 of 5 and 20 steps."""
    options = OPTIONS[name][0]
    eta = 0.0 if name == "TCDScheduler" else None
    worst = 0.0
    for config in configs(name, options):
        for steps, strength in itertools.product((5, 20), (0.3, 0.75)):
            worst = max(worst, distance(name, config, steps, Cut(strength=strength), eta))
    required = REQUIRED.get(name, TIGHT)
    print(f"{name}: measured {worst:.1e}, required {required:.0e}")
    assert worst <= required


@pytest.mark.parametrize("name", [name for name in OPTIONS if not name.startswith("EDM")])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_parts_of_a_run_are_diffusers(name: str, spacing: str) -> None:
    """denoising_end of the base, denoising_start of the refiner, and both; steps cut in their middle where they are."""
    options = OPTIONS[name][0]
    eta = 0.0 if name == "TCDScheduler" else None
    worst = 0.0
    cuts = [Cut(end=0.8), Cut(end=0.55), Cut(start=0.7), Cut(start=0.55), Cut(start=0.3, end=0.6)]
    for cut, steps in itertools.product(cuts, (5, 20)):
        worst = max(worst, distance(name, {**SDXL, **options, "timestep_spacing": spacing}, steps, cut, eta))
    required = REQUIRED.get(name, TIGHT)
    print(f"{name}: measured {worst:.1e}, required {required:.0e}")
    assert worst <= required


@pytest.mark.parametrize(("name", "etas"), [("DDIMScheduler", (0.5, 1.0)), ("TCDScheduler", (0.3, 1.0))])
def test_eta_is_diffusers(name: str, etas: tuple[float, ...]) -> None:
    worst = max(distance(name, SDXL, steps, eta=eta) for steps, eta in itertools.product(STEPS, etas))
    print(f"{name}: measured {worst:.1e}, required {TIGHT:.0e}")
    assert worst <= TIGHT


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "DDIMScheduler",
        "DDPMScheduler",
        "LCMScheduler",
        "TCDScheduler",
    ],
)
def test_zero_terminal_snr_is_diffusers(name: str) -> None:
    config = {**SDXL, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    eta = 0.0 if name == "TCDScheduler" else None
    worst = max(distance(name, config, steps, eta=eta) for steps in STEPS)
    print(f"{name}: measured {worst:.1e}, required {TIGHT:.0e}")
    assert worst <= TIGHT
    with pytest.raises(SchedulerError, match="cannot go with rescale_betas_zero_snr"):
        make_table({**config, "prediction_type": "epsilon"}, 5, name)


@pytest.mark.parametrize("name", OPTIONS)
def test_one_percent_in_one_coefficient_is_seen(name: str) -> None:
    """Every coefficient of the sample, in an evaluation where all orders are in use."""
    config, eta = configs(name, OPTIONS[name][0])[0], 0.5 if name == "TCDScheduler" else None
    table = make_table(config, 20, name, options=SamplerOptions(eta=eta))
    theirs = run_theirs(make_scheduler(name, config), 20, **({} if eta is None else {"eta": eta}))
    column = table.evaluations // 4
    fields = (
        Column.input,
        slice(Column.transition.start, Column.transition.start + HISTORY),
        Column.output,
        Column.noise,
    )
    places = [place for field in fields for place in range(field.start, field.stop) if table.columns[column, place]]
    required, seen = REQUIRED.get(name, TIGHT), {}
    for place in places:
        columns = table.columns.copy()
        columns[column, place] *= 1.01
        off = run_ours(dataclasses.replace(table, columns=columns))
        seen[place] = float(np.abs(off - theirs).max() / np.abs(theirs).max())
    print(f"{name}: measured {min(seen.values()):.1e} at least, of {len(seen)}; must exceed {required:.0e}")
    assert min(seen.values()) > required, seen


def test_runge_kutta_cannot_begin_part_way() -> None:
    with pytest.raises(UsageError, match="cannot begin part-way"):
        make_table({**SDXL, "skip_prk_steps": False}, 20, "PNDMScheduler", strength=0.5)
