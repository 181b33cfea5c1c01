"""Schedules against diffusers' EulerDiscreteScheduler, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy

from benchmarks.fidelity import models
from sdxl_trt.errors import SchedulerError, UsageError
from sdxl_trt.runtime.samplers import SAMPLERS, make_table
from sdxl_trt.runtime.schedules import Schedule
from sdxl_trt.runtime.schedules.quantiles import symmetric_beta_quantiles

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ["linspace", "leading", "trailing"]
STEPS = [1, 2, 5, 30, 50, 999, 1000]
RELATIVE = 1e-5

HUB_SDXL = {"_diffusers_version": "0.19.0.dev0", **models.SDXL}


def make_schedule(config: dict[str, Any], steps: int) -> Schedule:
    euler = SAMPLERS["euler"]
    return euler.schedule(euler.scheduler.settings(config, {}), steps)


def assert_is_diffusers(config: dict[str, Any], steps: list[int], *, absolute: float = 0.0) -> None:
    """Timesteps exactly; every σ that a run uses within 1e-5 of itself, plus `absolute`."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler.from_config(config)
    worst = 0.0
    for count in steps:
        scheduler.set_timesteps(count)
        schedule = make_schedule(config, count)
        np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.numpy())
        theirs = scheduler.sigmas.double().numpy()[: len(schedule.timesteps) + 1]
        assert schedule.sigmas.shape == theirs.shape == (len(schedule.timesteps) + 1,)
        assert schedule.timesteps.dtype == schedule.sigmas.dtype == np.float64
        excess = np.abs(schedule.sigmas - theirs) - absolute
        worst = max(worst, float((excess[theirs > 0] / theirs[theirs > 0]).max()))
        assert (schedule.sigmas[theirs == 0] == 0).all()
        assert schedule.initial_scale == pytest.approx(float(scheduler.init_noise_sigma), rel=RELATIVE, abs=absolute)
    print(f"σ, relative beyond {absolute:.0e}: measured {worst:.1e}, required {RELATIVE:.0e}")
    assert worst <= RELATIVE


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_spacing(spacing: str, offset: int, prediction: str) -> None:
    config = {**SDXL, "timestep_spacing": spacing, "steps_offset": offset, "prediction_type": prediction}
    assert_is_diffusers(config, STEPS)
    assert make_schedule(config, 3).prediction == prediction


@pytest.mark.parametrize(
    "betas",
    [
        {},  # EulerDiscreteScheduler's own
        {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012},
        SDXL,
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.0005 + 1e-5 * i for i in range(1000)]},
        {**SDXL, "num_train_timesteps": 37},
    ],
    ids=["default", "linear", "scaled_linear", "cosine", "trained", "37 timesteps"],
)
def test_betas_finals_and_interpolations(betas: dict[str, Any]) -> None:
    steps = [count for count in STEPS if count <= betas.get("num_train_timesteps", 1000)]
    for spacing, final, interpolation in itertools.product(SPACINGS, ["zero", "sigma_min"], ["linear", "log_linear"]):
        config = {**betas, "timestep_spacing": spacing, "final_sigmas_type": final, "interpolation_type": interpolation}
        assert_is_diffusers(config, steps)


@pytest.mark.parametrize(
    ("betas", "absolute"),
    [
        (SDXL, 0.0),
        # The smallest σ (0.007) hang on the last bit of torch's square root, which is not IEEE's and differs by CPU.
        ({"beta_schedule": "linear"}, 2e-5),
        ({"beta_schedule": "squaredcos_cap_v2"}, 2e-5),
    ],
    ids=["SDXL", "linear", "cosine"],
)
def test_zero_terminal_snr(betas: dict[str, Any], absolute: float) -> None:
    for spacing in SPACINGS:
        config = {**betas, "timestep_spacing": spacing, "rescale_betas_zero_snr": True, "prediction_type": "sample"}
        assert_is_diffusers(config, STEPS, absolute=absolute)
    assert make_schedule(config, 30).sigmas[0] == pytest.approx(4096, rel=1e-6)


def test_configs_of_the_hub_and_of_the_other_families() -> None:
    assert_is_diffusers(HUB_SDXL, STEPS)
    ddim = {"set_alpha_to_one": False, "clip_sample_range": 1.0, "thresholding": False}
    assert_is_diffusers({**SDXL, **ddim}, [30])


def test_trailing_spacing_has_diffusers_extra_timestep() -> None:
    config = {**SDXL, "timestep_spacing": "trailing"}
    assert_is_diffusers(config, [61, 103, 998])
    assert len(make_schedule(config, 61).timesteps) == 62
    assert make_schedule(config, 61).timesteps[-1] == -1


def test_schedules_are_read_only() -> None:
    schedule = make_schedule(SDXL, 3)
    for array in (schedule.timesteps, schedule.sigmas):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("use_karras_sigmas", "yes", "not known"),
        ("use_flow_sigmas", True, "not supported"),
        ("use_dynamic_shifting", True, "not supported"),
        ("rescale_betas_zero_snr", True, "cannot go with rescale_betas_zero_snr"),
        ("timestep_type", "karras", "not known"),
        ("sigma_min", -0.03, "cannot be used"),
        ("sigma_max", "14.6", "cannot be used"),
        ("shift", 3.0, "not known"),
        ("beta_schedule", "sigmoid", "not known"),
        ("prediction_type", "flow_prediction", "not known"),
        ("prediction_type", None, "not known"),
        ("timestep_spacing", "karras", "not known"),
        ("interpolation_type", ["linear"], "not known"),
        ("final_sigmas_type", 0, "not known"),
        ("rescale_betas_zero_snr", "yes", "not known"),
        ("num_train_timesteps", 1, "cannot be used"),
        ("num_train_timesteps", 10**12, "cannot be used"),
        ("num_train_timesteps", 1000.0, "cannot be used"),
        ("steps_offset", -1, "cannot be used"),
        ("steps_offset", True, "cannot be used"),
        ("beta_start", 0, "cannot be used"),
        ("beta_start", math.nan, "cannot be used"),
        ("beta_end", "0.012", "cannot be used"),
        ("trained_betas", [0.1] * 999, "cannot be used"),
        ("trained_betas", [0.1] * 999 + ["x"], "cannot be used"),
        ("trained_betas", 0.1, "cannot be used"),
        ("trained_betas", [1e-9] * 1000, "no usable noise levels"),  # σ = 0
        ("trained_betas", [0.999] * 1000, "no usable noise levels"),  # σ infinite
    ],
)
def test_what_has_no_schedule_is_refused_by_name(option: str, value: Any, why: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        make_schedule({**SDXL, option: value}, 30)
    error = caught.value
    assert why in error.what
    assert option in error.what + error.fix
    assert error.got
    assert error.expected
    assert error.fix


@pytest.mark.parametrize("steps", [0, -1, 1001, True, 30.0, "30", None, 10**30])
def test_steps_out_of_range_are_refused(steps: Any) -> None:
    with pytest.raises(UsageError) as caught:
        make_schedule(SDXL, steps)
    assert repr(steps) in caught.value.got
    assert "1 to 1000" in caught.value.expected
    assert "--steps" in caught.value.fix


@pytest.mark.parametrize(
    ("sampler", "option", "value", "why"),
    [
        ("ddim", "thresholding", True, "not linear"),
        ("ddim", "clip_sample", True, "not linear"),
        ("lcm", "clip_sample", True, "not linear"),
        ("heun", "clip_sample", True, "not linear"),
        ("unipc", "thresholding", True, "not linear"),
        ("unipc", "solver_p", "x", "not supported"),
        ("unipc", "disable_corrector", ["1"], "cannot be used"),
        ("dpmpp_2m", "variance_type", "learned_range", "not known"),
        ("dpmpp_2m", "solver_type", "ralston", "not known"),
        ("dpmpp_2m", "lambda_min_clipped", math.nan, "cannot be used"),
        ("dpmpp_sde", "noise_sampler_seed", -1, "cannot be used"),
        ("dpmpp_sde", "prediction_type", "sample", "not known"),
        ("deis", "solver_order", 4, "not known"),
        ("deis", "solver_order", True, "not known"),
        ("lcm", "original_inference_steps", 0, "cannot be used"),
        ("edm_euler", "rho", 0, "cannot be used"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_by_name(sampler: str, option: str, value: Any, why: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        SAMPLERS[sampler].scheduler.settings({option: value}, {})
    assert why in caught.value.what
    assert option in caught.value.what
    assert caught.value.expected
    assert caught.value.fix


def test_what_a_class_does_not_have_is_left_alone() -> None:
    """As in diffusers: Euler ancestral has no order and no Karras σ."""
    config = {"solver_order": 3, "use_karras_sigmas": True}
    settings = SAMPLERS["euler_a"].scheduler.settings(config, {})
    assert not settings["use_karras_sigmas"]
    with pytest.raises(SchedulerError, match="use_exponential_sigmas cannot go with use_karras_sigmas"):
        SAMPLERS["euler"].scheduler.settings({"use_karras_sigmas": True, "use_exponential_sigmas": True}, {})


@pytest.mark.parametrize(
    ("sampler", "config", "steps", "why"),
    [
        ("lcm", {}, 51, "out of range"),
        ("tcd", {}, 51, "out of range"),
        ("PNDMScheduler", {"skip_prk_steps": False}, 3, "so few steps"),
        ("ddim", {"timestep_spacing": "trailing"}, 61, "trailing spacing"),
        ("ddim", {"timestep_spacing": "leading", "steps_offset": 1}, 1000, "leading spacing"),
        ("heun", {}, 1001, "out of range"),
        ("unipc", {}, 0, "out of range"),
        ("edm_euler", {}, 1001, "out of range"),
        ("DEIS Karras", {}, 1, "cannot do one step with karras_sigmas"),
        ("DEIS Beta", {}, 1, "cannot do one step with beta_sigmas"),
    ],
)
def test_steps_that_a_sampler_cannot_do(sampler: str, config: dict[str, Any], steps: int, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_table(config, steps, sampler)
    assert why in caught.value.what
    assert str(steps) in caught.value.got
    assert caught.value.fix


def test_quantiles_of_the_beta_distribution() -> None:
    """Against mpmath's incomplete beta function, 100 halvings."""
    probabilities = np.array([0.0, 1e-6, 1e-3, 0.05, 0.3, 0.5, 0.71, 0.999, 1.0])
    wanted = scipy.stats.beta.ppf(probabilities, 0.6, 0.6)
    measured = np.abs(symmetric_beta_quantiles(probabilities, 0.6) - wanted)[1:-1] / wanted[1:-1]
    print(f"measured {measured.max():.1e}, required 1e-12")
    assert measured.max() <= 1e-12
    np.testing.assert_array_equal(symmetric_beta_quantiles(np.array([0.0, 1.0]), 0.6), [0, 1])
