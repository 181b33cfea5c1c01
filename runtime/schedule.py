"""Schedules: which noise levels a run visits, spaced, rounded and sliced as diffusers does from a scheduler's config.

Sources: the forward process is Ho et al. 2020 (arXiv 2006.11239); σ = √((1 − ᾱ)/ᾱ) is Karras et al. 2022 (arXiv
2206.00364); spacings and the rescaling to zero terminal SNR are Lin et al. 2023 (arXiv 2305.08891). What a config means
is diffusers 0.42.1, `EulerDiscreteScheduler.__init__` and `set_timesteps`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from sdxl_trt.errors import SchedulerError, UsageError

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What the network gives: the noise, the velocity (arXiv 2202.00512, appendix D) or the clean sample."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
}
_CHOICES: Final[Mapping[str, tuple[Any, ...]]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "interpolation_type": ("linear", "log_linear"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "rescale_betas_zero_snr": (False, True, None),
    "final_sigmas_type": ("zero", "sigma_min"),
}
_NOT_YET: Final[Mapping[str, tuple[Any, ...]]] = {
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "timestep_type": ("discrete",),
    "sigma_min": (None,),
    "sigma_max": (None,),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Options by which levels or outputs would differ, with the values at which they do not."""
_NOT_LINEAR: Final[Mapping[str, tuple[Any, ...]]] = {"thresholding": (False, None), "clip_sample": (False, None)}
# fmt: off
_HARMLESS: Final = frozenset((
    "algorithm_type", "clip_sample_range", "corrector_order", "disable_corrector", "dynamic_thresholding_ratio",
    "euler_at_final", "flow_shift", "lambda_min_clipped", "lower_order_final", "original_inference_steps", "predict_x0",
    "predictor_order", "sample_max_value", "set_alpha_to_one", "skip_prk_steps", "solver_order", "solver_p",
    "solver_type", "time_shift_type", "timestep_scaling",
))
# fmt: on
"""Options of other recurrences, and of switches that are off: no influence on a schedule, whatever their value."""

_MAX_TRAIN_TIMESTEPS = 100_000  # a config may be a stranger's: this bounds memory
_ZERO_SNR_ALPHA_BAR = 2.0**-24  # instead of 0, so that the first σ is finite (4096)


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """The noise levels of one run, from pure noise down."""

    timesteps: NDArray[np.float64]
    """[n], what the UNet is told."""
    sigmas: NDArray[np.float64]
    """[n + 1], noise per unit of signal, σ = √((1 − ᾱ)/ᾱ); the last is where the run ends."""
    initial_scale: float
    """Standard deviation of the starting sample (diffusers' init_noise_sigma)."""
    prediction: Prediction


def make_schedule(config: Mapping[str, Any], steps: int) -> Schedule:
    """The schedule that diffusers' `EulerDiscreteScheduler.from_config(config).set_timesteps(steps)` has.

    Like diffusers, 'trailing' spacing gives one timestep more, −1, for the step counts where floating-point division
    makes it so (61, 103, 121, … of 1000), and 'log_linear' interpolation ends at the smallest training σ, whatever
    `final_sigmas_type` is.

    Args:
        config: content of scheduler_config.json.
        steps: 1 … num_train_timesteps.

    Raises:
        SchedulerError: the config asks for something that has no linear table, is not here yet, or is not known.
        UsageError: `steps` out of range.
    """
    settings = _settings(config)
    steps = _checked_steps(steps, settings["num_train_timesteps"])
    train_sigmas = _train_sigmas(settings)
    timesteps = _timesteps(settings, steps)
    if settings["interpolation_type"] == "log_linear":
        sigmas = np.exp(_linspace(np.log(train_sigmas[-1]), np.log(train_sigmas[0]), steps + 1))
    else:
        sigmas = np.interp(timesteps, np.arange(len(train_sigmas)), train_sigmas)
    last = train_sigmas[0] if settings["final_sigmas_type"] == "sigma_min" else 0.0
    sigmas = np.append(sigmas, last)[: len(timesteps) + 1].astype(np.float32).astype(np.float64)
    scale = float(sigmas.max())
    for array in (timesteps, sigmas):
        array.setflags(write=False)
    return Schedule(
        timesteps=timesteps,
        sigmas=sigmas,
        initial_scale=math.hypot(scale, 1.0) if settings["timestep_spacing"] == "leading" else scale,
        prediction=settings["prediction_type"],
    )


def _timesteps(settings: Mapping[str, Any], steps: int) -> NDArray[np.float64]:
    """Timesteps in descending order, float64 [n] (of float32 precision); table 2 of arXiv 2305.08891."""
    trained = settings["num_train_timesteps"]
    if settings["timestep_spacing"] == "linspace":
        spaced = np.linspace(0, trained - 1, steps)[::-1]
    elif settings["timestep_spacing"] == "leading":
        spaced = np.arange(steps)[::-1] * (trained // steps) + settings["steps_offset"]
    else:
        spaced = np.arange(trained, 0, -trained / steps).round() - 1
    return spaced.astype(np.float32).astype(np.float64)


def _train_sigmas(settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """σ of every training timestep, ascending, float32 [num_train_timesteps].

    In float32 as in torch, which rounds cumulative products once: exact arithmetic would be off by 1e-5 to 3e-4.
    """
    betas = _betas(settings)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if settings["rescale_betas_zero_snr"]:
            betas = _zero_terminal_snr(betas)
        alpha_bar = np.cumprod(1 - betas, dtype=np.float64).astype(np.float32)
        if settings["rescale_betas_zero_snr"]:
            alpha_bar[-1] = _ZERO_SNR_ALPHA_BAR
        sigmas: NDArray[np.float32] = np.sqrt((1 - alpha_bar) / alpha_bar)
    if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
        raise SchedulerError(
            "the scheduler's betas give no usable noise levels",
            got=f"sigmas from {sigmas.min()} to {sigmas.max()}",
            expected="every sigma finite and above 0",
            fix="correct beta_start, beta_end or trained_betas in scheduler_config.json",
        )
    return sigmas


def _betas(settings: Mapping[str, Any]) -> NDArray[np.float32]:
    """Variance of the noise that each training timestep adds, float32 [num_train_timesteps]."""
    if settings["trained_betas"] is not None:
        return np.array(settings["trained_betas"], np.float32)
    start, end, count = (settings[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
    if settings["beta_schedule"] == "linear":
        return _linspace(start, end, count)
    if settings["beta_schedule"] == "scaled_linear":
        return _linspace(math.sqrt(start), math.sqrt(end), count) ** 2
    # Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17
    alpha_bar = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    return np.array([min(1 - alpha_bar[i + 1] / alpha_bar[i], 0.999) for i in range(count)], np.float32)


def _zero_terminal_snr(betas: NDArray[np.float32]) -> NDArray[np.float32]:
    """Betas by which the last training timestep keeps no signal; arXiv 2305.08891, algorithm 1."""
    root = np.sqrt(np.cumprod(1 - betas, dtype=np.float64).astype(np.float32))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alpha_bar = root**2
    betas[0], betas[1:] = 1 - alpha_bar[0], 1 - alpha_bar[1:] / alpha_bar[:-1]
    return betas


def _linspace(start: float, end: float, count: int) -> NDArray[np.float32]:
    """torch.linspace in float32, to the bit: a float32 step, counted from either end with one rounding."""
    first, last = np.float32(start), np.float32(end)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    rising, falling = float(first) + step * index, float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every entry of `_DEFAULTS`, from the config where it has one, checked."""
    for key, value in config.items():
        if key in _NOT_LINEAR and value not in _NOT_LINEAR[key]:
            _refuse(key, value, "is not linear: no sampler table can hold it", _NOT_LINEAR[key])
        if key in _NOT_YET and value not in _NOT_YET[key]:
            _refuse(key, value, "is not supported yet", _NOT_YET[key])
        if not (key in _DEFAULTS or key in _NOT_YET or key in _NOT_LINEAR or key in _HARMLESS or key.startswith("_")):
            _refuse(key, value, "is not known", ("no such entry",))
    settings = {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    for key, choices in _CHOICES.items():
        if settings[key] not in choices:
            _refuse(key, settings[key], "has a value that is not known", choices)
    _check_numbers(settings)
    return settings


def _check_numbers(settings: Mapping[str, Any]) -> None:
    trained, betas = settings["num_train_timesteps"], settings["trained_betas"]
    for key, low, high in (("num_train_timesteps", 2, _MAX_TRAIN_TIMESTEPS), ("steps_offset", 0, trained)):
        if not (_is_integer(settings[key]) and low <= settings[key] <= high):
            _refuse(key, settings[key], "cannot be used", (f"an integer from {low} to {high}",))
    for key in ("beta_start", "beta_end"):
        if not _is_beta(settings[key]):
            _refuse(key, settings[key], "cannot be used", ("a number between 0 and 1",))
    if betas is not None and not (isinstance(betas, list) and len(betas) == trained and all(map(_is_beta, betas))):
        got = f"{len(betas)} entries" if isinstance(betas, list) else betas
        _refuse("trained_betas", got, "cannot be used", (f"{trained} numbers between 0 and 1",))


def _checked_steps(steps: int, trained: int) -> int:
    if _is_integer(steps) and 1 <= steps <= trained:
        return int(steps)
    raise UsageError(
        "the number of steps is out of range",
        got=f"{steps!r} ({type(steps).__name__})",
        expected=f"an integer from 1 to {trained}, as many as the model was trained with",
        fix=f"--steps {min(30, trained)}",
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_beta(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1


def _refuse(key: str, value: Any, why: str, accepted: tuple[Any, ...]) -> NoReturn:
    raise SchedulerError(
        f"the scheduler option {key} {why}",
        got=f"{key} = {value!r:.100}",
        expected=" or ".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in accepted),
        fix=f"change {key} in the model's scheduler/scheduler_config.json",
    )
