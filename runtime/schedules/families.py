"""Schedules as diffusers' families of schedulers make them: each spaces, converts and rounds in its own way."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import UsageError
from sdxl_trt.runtime.schedules.conversions import conversion, convert, sigmas_to_timesteps
from sdxl_trt.runtime.schedules.schedule import Schedule, Settings
from sdxl_trt.runtime.schedules.settings import checked_steps
from sdxl_trt.runtime.schedules.training import finite, torch_linspace, train_alpha_bars

_NO_LEVELS = np.empty(0)
_AS_TRAINED = "as many as the model was trained with"


def sigma_schedule(settings: Settings, steps: int, *, rounded: bool = False) -> Schedule:
    """That of the family in σ (Euler, Heun, LMS, DPM2, DPM++ SDE): σ is interpolated at timesteps of any value.

    Like diffusers, 'trailing' spacing gives one timestep more, −1, for the step counts where floating-point division
    makes it so (61, 103, 121, … of 1000), and 'log_linear' interpolation ends at the smallest training σ, whatever
    `final_sigmas_type` is.

    Args:
        settings: of the scheduler.
        steps: 1 … num_train_timesteps.
        rounded: timesteps of Karras' σ are whole numbers.

    Raises:
        SchedulerError: the betas give no usable levels.
        UsageError: `steps` out of range, or one step that would end where it begins.
    """
    steps = checked_steps(steps, settings["num_train_timesteps"], _AS_TRAINED)
    alpha_bars = finite(train_alpha_bars(settings), settings)
    trained = np.sqrt((1 - alpha_bars) / alpha_bars)
    timesteps = _spaced(settings, steps).astype(np.float32).astype(np.float64)
    if settings["interpolation_type"] == "log_linear":
        sigmas = np.exp(torch_linspace(np.log(trained[-1]), np.log(trained[0]), steps + 1)).astype(np.float64)
    else:
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    kind = conversion(settings)
    if kind is not None:
        sigmas = convert(kind, settings, highest=float(sigmas[0]), lowest=float(sigmas[-1]), count=steps)
        timesteps = sigmas_to_timesteps(sigmas, trained)
        timesteps = timesteps.round() if rounded and kind == "karras_sigmas" else timesteps
    last = trained[0] if settings["final_sigmas_type"] == "sigma_min" else 0.0
    sigmas = _float32(np.append(sigmas, last)[: len(timesteps) + 1])
    if settings["timestep_type"] == "continuous" and settings["prediction_type"] == "v_prediction":
        timesteps = 0.25 * np.log(sigmas[:-1])
    highest = float(sigmas.max())
    leading = settings["timestep_spacing"] == "leading"
    return Schedule(
        timesteps=timesteps,
        sigmas=sigmas,
        steps=steps,
        initial_scale=math.hypot(highest, 1.0) if leading else highest,
        settings=settings,
        alpha_bars=alpha_bars.astype(np.float64),
        preserving=False,
    )


def solver_schedule(settings: Settings, steps: int, *, own_end: bool = False) -> Schedule:
    """That of the solvers in λ (DPM-Solver, DEIS, UniPC): whole timesteps, of one more than `steps` that are spaced.

    Karras', exponential and beta σ span all levels of training, whatever the spacing. Like diffusers, timesteps of
    exponential and beta σ are cut off, those of Karras' σ rounded (but, in DPM-Solver++, cut off for cosine betas).

    Args:
        settings: of the scheduler.
        steps: 1 … num_train_timesteps.
        own_end: converted σ with `final_sigmas_type` sigma_min end at their own last value, not at training's.

    Raises:
        SchedulerError: the betas give no usable levels.
        UsageError: `steps` out of range.
    """
    steps = checked_steps(steps, settings["num_train_timesteps"], _AS_TRAINED)
    alpha_bars = finite(train_alpha_bars(settings), settings)
    trained = np.sqrt((1 - alpha_bars) / alpha_bars)
    kind = conversion(settings)
    if kind is None:
        timesteps = _spaced_beyond(settings, steps, _unclipped(settings, alpha_bars))
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas = convert(kind, settings, highest=float(trained[-1]), lowest=float(trained[0]), count=steps)
        timesteps = sigmas_to_timesteps(sigmas, trained)
        cosine = settings["beta_schedule"] == "squaredcos_cap_v2" and not own_end
        rounds = kind in ("karras_sigmas", "lu_lambdas") and not cosine
        timesteps = timesteps.round() if rounds else np.trunc(timesteps)
    smallest = sigmas[-1] if own_end and kind is not None else trained[0]
    last = smallest if settings["final_sigmas_type"] == "sigma_min" else 0.0
    if last == sigmas[0]:
        raise _stands_still(kind)
    return Schedule(
        timesteps=timesteps,
        sigmas=_float32(np.append(sigmas, last)),
        steps=steps,
        initial_scale=1.0,
        settings=settings,
        alpha_bars=alpha_bars.astype(np.float64),
        preserving=True,
    )


def _stands_still(kind: str | None) -> UsageError:
    return UsageError(
        f"this sampler cannot do one step with {kind}",
        got="1 step, of which diffusers makes a picture of noise alone",
        expected="at least 2: it ends at the last σ of its steps, which is the first one's",
        fix="--steps 2, or another sampler",
    )


def discrete_schedule(settings: Settings, steps: int) -> Schedule:
    """That of DDIM and DDPM: training timesteps themselves, whose levels are looked up.

    Raises:
        SchedulerError: the betas give no usable levels.
        UsageError: `steps` out of range, or a number whose timesteps go beyond those of training.
    """
    trained = settings["num_train_timesteps"]
    steps = checked_steps(steps, trained, _AS_TRAINED)
    timesteps = _spaced(settings, steps).round()
    if timesteps[-1] < 0 or timesteps[0] >= trained:
        raise UsageError(
            f"this sampler cannot do this number of steps with {settings['timestep_spacing']} spacing",
            got=f"{steps} steps: rounding gives timesteps from {timesteps[0]:.0f} to {timesteps[-1]:.0f}",
            expected=f"timesteps of training, {trained - 1} to 0",
            fix=f"--steps {steps - 1}",
        )
    return _looked_up(settings, timesteps, steps)


def pndm_schedule(settings: Settings, steps: int) -> Schedule:
    """That of PNDM: as DDIM's, with the timesteps that its warm-up evaluates several times.

    Raises:
        SchedulerError: the betas give no usable levels.
        UsageError: `steps` out of range, or fewer than Runge–Kutta's warm-up.
    """
    plain = discrete_schedule(settings, steps)
    spaced = plain.timesteps
    if settings["skip_prk_steps"]:
        return _looked_up(settings, np.concatenate([spaced[:1], spaced[1:2], spaced[1:]]), plain.steps)
    if plain.steps < 4:
        raise UsageError(
            "PNDM with Runge-Kutta steps cannot do so few steps",
            got=f"{steps} steps",
            expected="at least 4: the first three take four evaluations each",
            fix="--steps 20, or set skip_prk_steps in the model's scheduler_config.json",
        )
    half = settings["num_train_timesteps"] // plain.steps // 2
    between = np.repeat(spaced[3::-1], 2) + np.tile([0, half], 4)
    prk = np.repeat(between[:-1], 2)[1:-1][::-1]
    return _looked_up(settings, np.concatenate([prk, spaced[3:]]), plain.steps)


def consistency_schedule(settings: Settings, steps: int) -> Schedule:
    """That of LCM and TCD: some of the timesteps that the model was distilled at.

    Raises:
        SchedulerError: the betas give no usable levels.
        UsageError: `steps` out of range.
    """
    original, trained = settings["original_inference_steps"], settings["num_train_timesteps"]
    original = min(original, trained)
    steps = checked_steps(steps, original, "as many as the model was distilled with (original_inference_steps)")
    distilled = (np.arange(1, original + 1) * (trained // original) - 1)[::-1]
    chosen = np.floor(np.linspace(0, original, num=steps, endpoint=False)).astype(np.int64)
    return _looked_up(settings, distilled[chosen], steps)


def edm_schedule(settings: Settings, steps: int, *, double: bool) -> Schedule:
    """That of models trained as Karras et al. 2022 (arXiv 2206.00364) do: any σ between two ends, and no timesteps.

    The network is told log(σ)/4.

    Args:
        settings: of the scheduler.
        steps: 1 … num_train_timesteps.
        double: σ are computed in float64, as in diffusers' EDM Euler; else in float32, as in its EDM DPM-Solver++.

    Raises:
        UsageError: `steps` out of range.
    """
    steps = checked_steps(steps, settings["num_train_timesteps"], "num_train_timesteps")
    lowest, highest, power = settings["sigma_min"], settings["sigma_max"], 1 / settings["rho"]
    if settings["sigma_schedule"] == "karras":
        ramp = np.linspace(0, 1, steps) if double else torch_linspace(0, 1, steps)
        first, last = highest**power, lowest**power
        sigmas = (first + ramp * (last - first)) ** settings["rho"]
    else:
        sigmas = np.exp(torch_linspace(math.log(lowest), math.log(highest), steps))[::-1]
    end = 0.0
    if settings["final_sigmas_type"] == "sigma_min":
        end = sigmas[-1] if double else lowest
    sigmas = _float32(np.append(sigmas, end))
    return Schedule(
        timesteps=0.25 * np.log(sigmas[:-1]),
        sigmas=sigmas,
        steps=steps,
        initial_scale=math.hypot(highest, 1.0),
        settings=settings,
        alpha_bars=_NO_LEVELS,
        preserving=False,
    )


def _looked_up(settings: Settings, timesteps: NDArray[np.generic], steps: int) -> Schedule:
    return Schedule(
        timesteps=timesteps.astype(np.float64),
        sigmas=_NO_LEVELS,
        steps=steps,
        initial_scale=1.0,
        settings=settings,
        alpha_bars=train_alpha_bars(settings).astype(np.float64),
        preserving=True,
    )


def _spaced(settings: Settings, steps: int) -> NDArray[np.float64]:
    """Timesteps in descending order, float64 [n]; table 2 of arXiv 2305.08891."""
    trained = settings["num_train_timesteps"]
    if settings["timestep_spacing"] == "linspace":
        return np.linspace(0, trained - 1, steps)[::-1]
    if settings["timestep_spacing"] == "leading":
        spaced: NDArray[np.float64] = np.arange(steps, dtype=np.float64)[::-1] * (trained // steps)
        spaced += settings["steps_offset"]
        return spaced
    return np.arange(trained, 0, -trained / steps).round() - 1


def _spaced_beyond(settings: Settings, steps: int, trained: int) -> NDArray[np.float64]:
    """Whole timesteps in descending order: as if there were one step more, at timestep 0, which is not done."""
    if settings["timestep_spacing"] == "linspace":
        return np.linspace(0, trained - 1, steps + 1).round()[:0:-1]
    if settings["timestep_spacing"] == "leading":
        spaced: NDArray[np.float64] = np.arange(steps, 0, -1, dtype=np.float64) * (trained // (steps + 1))
        spaced += settings["steps_offset"]
        return spaced
    return np.arange(trained, 0, -settings["num_train_timesteps"] / steps).round() - 1


def _unclipped(settings: Settings, alpha_bars: NDArray[np.float32]) -> int:
    """How many training timesteps have λ = log(α/σ) of lambda_min_clipped at least."""
    log_snr = (np.log(alpha_bars) - np.log(1 - alpha_bars)) / 2
    return int(np.count_nonzero(log_snr >= settings["lambda_min_clipped"]))


def _float32(sigmas: NDArray[np.generic]) -> NDArray[np.float64]:
    """In float32 precision, as diffusers keeps them."""
    return sigmas.astype(np.float32).astype(np.float64)
